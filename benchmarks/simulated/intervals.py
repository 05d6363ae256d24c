"""Coverage and false positives of the interval of one comparison that the verdict rests on.

covers: intervals of `paired_bootstrap` that hold the true difference. p < 0.05: it says that there is a
difference (where there is none: false positives). For comparison, seeds only: coverage of Student's t over
the seeds' differences, which keeps the test set fixed; percentile: coverage of the plain percentile interval
of the crossed bootstrap; McNemar: his test of the first seed says that there is a difference (the last two in
300 experiments at most).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import t as student_t

from cotdistill.analysis.crossed import paired_bootstrap
from cotdistill.analysis.paired import mcnemar_p

from .tally import ALPHA, RESAMPLES, Tally, show_shares
from .worlds import World

COMPARED = 300
"""experiments of the two slow columns, which are there for comparison alone"""
NAMES = ("covers", "p < 0.05", "seeds only", "percentile", "McNemar")
COLUMNS = ("experiment", "seeds", "tests", *NAMES)

WORLDS = {
    "no effect": World(0.65, 0.0),
    "no effect, seeds alike": World(0.65, 0.0, seed=0.0, seed_method=0.0),
    "no effect, noise alone": World(0.65, 0.0, taste=0.0, seed=0.0, seed_method=0.0),
    "no effect, seeds differ": World(0.65, 0.0, difficulty=1.0, taste=0.3, seed=0.1, seed_method=0.2),
    "4 points": World(0.62, 0.04, seed_method=0.08),
    "2 points, near the top": World(0.93, 0.02, taste=0.5, seed=0.0, seed_method=0.08),
}


def simulate(world: World, n: int, m: int, repetitions: int, rng: np.random.Generator) -> Tally:
    """Return how often each of NAMES happened."""
    seed_counts = rng.multinomial(n, np.full(n, 1 / n), size=200) / n
    example_counts = rng.multinomial(m, np.full(m, 1 / m), size=200) / m
    quantile = student_t.ppf(1 - ALPHA / 2, n - 1)
    tally = Tally()
    for repetition in range(repetitions):
        ours, theirs = world.draw(n, m, rng)
        matrix = ours.astype(np.float64) - theirs
        found = paired_bootstrap(matrix, rng, RESAMPLES)
        tally.add("covers", found.low - 1e-12 <= world.difference <= found.high + 1e-12)
        tally.add("p < 0.05", found.p < ALPHA)
        means = matrix.mean(axis=1)
        half = quantile * means.std(ddof=1) / np.sqrt(n)
        tally.add("seeds only", abs(means.mean() - world.difference) <= half)
        if repetition < COMPARED:
            low, high = np.quantile(((seed_counts @ matrix) * example_counts).sum(axis=1), [0.025, 0.975])
            tally.add("percentile", low <= world.difference <= high)
            tally.add("McNemar", mcnemar_p(ours[0], theirs[0], range(m)) < ALPHA)
    return tally


def list_rows(repetitions: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for each world, number of seeds and of test examples."""
    for n in seeds:
        for m in (100, 200, 1000):
            for name, world in WORLDS.items():
                rng = np.random.default_rng([n, m, list(WORLDS).index(name)])
                tally = simulate(world, n, m, repetitions, rng)
                yield name, str(n), str(m), *show_shares(tally, NAMES)

"""The mean difference over datasets: coverage, and false positives where the true mean is 0.

200 test examples a dataset. bootstrap: coverage of the mean of the datasets' bootstrap deviations, each
widened for its own few seeds, which was the interval once (in 200 experiments at most). improvement: where no
dataset has an effect, intervals of the probability of improvement that hold one half; they are over runs
alone, and keep the test set fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cotdistill.analysis.across import improvement_interval
from cotdistill.analysis.crossed import (
    average,
    compute_components,
    estimate,
    gather,
    resample_deviations,
)

from .clusters import SHAPES
from .tally import ALPHA, RESAMPLES, Tally, show_shares
from .worlds import World

M = 200
COMPARED = 200
NAMES = ("covers", "p < 0.05", "bootstrap", "improvement")
COLUMNS = ("datasets", "of them", "seeds", "true mean, points", *NAMES)
PLAIN = World(0.65, 0.0)
KINDS: dict[str, list[World]] = {
    "alike": [PLAIN] * 4,
    "unequal spread": [
        PLAIN,
        replace(PLAIN, seed_method=0.2),
        World(0.9, 0.0, seed_method=0.02),
        World(0.5, 0.0, seed_method=0.1),
    ],
    "seeds of one differ most": [replace(PLAIN, seed_method=0.4), *[World(0.8, 0.0, seed_method=0.02)] * 3],
    "one with an effect of 10 points": [World(0.6, 0.1), *[PLAIN] * 3],
    "gains and losses": [World(0.62, 0.05), World(0.62, -0.1, seed_method=0.2), World(0.9, 0.02), PLAIN],
    "in groups as SVAMP's": [
        replace(PLAIN, taste=0.5, sizes=SHAPES["117 of 1 to 7 (SVAMP)"], together=0.8)
    ] * 4,
}  # fmt: skip


def simulate(worlds: Sequence[World], n: int, repetitions: int, rng: np.random.Generator) -> Tally:
    """Return how often each of NAMES happened."""
    truth = float(np.mean([world.difference for world in worlds]))
    tally = Tally()
    for repetition in range(repetitions):
        units, sides = [], []
        for world in worlds:
            ours, theirs = world.draw(n, M, rng)
            sides.append((ours.mean(axis=1), theirs.mean(axis=1)))
            groups = world.name_groups() if world.sizes else np.arange(M)
            units.append(gather(ours.astype(np.float64) - theirs, groups))
        found = average([compute_components(*each) for each in units])
        tally.add("covers", found.low - 1e-12 <= truth <= found.high + 1e-12)
        tally.add("p < 0.05", found.p < ALPHA)
        if not any(world.difference for world in worlds):
            low, high = improvement_interval(*zip(*sides, strict=True), rng)
            tally.add("improvement", low <= 0.5 <= high)
        if repetition < COMPARED:
            drawn = [resample_deviations(sums, rng, RESAMPLES, sizes) for sums, sizes in units]
            wide = estimate(found.mean, np.mean(drawn, axis=0))
            tally.add("bootstrap", wide.low <= truth <= wide.high)
    return tally


def list_rows(repetitions: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for 2 and 4 datasets of each kind."""
    for datasets in (2, 4):
        for place, (name, worlds) in enumerate(KINDS.items()):
            used = worlds[:datasets]
            truth = 100 * float(np.mean([world.difference for world in used]))
            for n in seeds:
                rng = np.random.default_rng([datasets, place, n])
                tally = simulate(used, n, repetitions, rng)
                yield str(datasets), name, str(n), f"{truth:g}", *show_shares(tally, NAMES)

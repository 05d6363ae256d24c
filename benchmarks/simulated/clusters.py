"""Test examples in groups: coverage and false positives with groups as units, and with examples as units.

No effect, seeds differ by about 2 points. together: the share of the variance of difficulty and taste that
the examples of a group have in common. effective: the number of groups of one size with as many degrees of
freedom (`count_freedom` and 1). The sizes of the groups are those of e-SNLI's premises, of ANLI's (R1) texts,
of SVAMP's opening sentences, of a demo of 70 creatures, and made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cotdistill.analysis.crossed import count_freedom, gather, paired_bootstrap

from .tally import ALPHA, RESAMPLES, Tally, show_shares
from .worlds import World, list_sizes

COMPARED = 300
"""experiments with examples as units, which are there for comparison alone"""
NAMES = ("covers", "p < 0.05", "p < 0.05, examples as units")
COLUMNS = ("groups", "tests", "effective", "together", "seeds", *NAMES)
TOGETHER = 0.8
SHAPES = {
    "3,323 of mostly 3 (e-SNLI)": list_sizes({1: 5, 2: 164, 3: 3143, 5: 4, 6: 7}),
    "846 of 1 to 3 (ANLI)": list_sizes({1: 703, 2: 132, 3: 11}),
    "117 of 1 to 7 (SVAMP)": list_sizes({1: 73, 2: 19, 3: 15, 4: 8, 5: 1, 7: 1}),
    "70 of 2 to 6 (demo)": list_sizes({2: 8, 3: 24, 4: 29, 5: 7, 6: 2}),
    "50 of 4": list_sizes({4: 50}),
    "20 of 10": list_sizes({10: 20}),
    "10 of 20": list_sizes({20: 10}),
    "5 of 40": list_sizes({40: 5}),
    "100, one of 20": list_sizes({20: 1, 2: 81, 1: 18}),
    "one of 66, 134 of 1": list_sizes({66: 1, 1: 134}),
    "40 of 60/1, 60/2, 60/3, ...": tuple(max(1, 60 // place) for place in range(1, 41)),
}
WORLD = World(0.65, 0.0, taste=0.5, seed_method=0.07, together=TOGETHER)


def simulate(world: World, n: int, repetitions: int, rng: np.random.Generator) -> Tally:
    """Return how often each of NAMES happened."""
    groups = world.name_groups()
    tally = Tally()
    for repetition in range(repetitions):
        ours, theirs = world.draw(n, 0, rng)
        matrix = ours.astype(np.float64) - theirs
        sums, sizes = gather(matrix, groups)
        found = paired_bootstrap(sums, rng, RESAMPLES, sizes=sizes)
        tally.add("covers", found.low - 1e-12 <= world.difference <= found.high + 1e-12)
        tally.add("p < 0.05", found.p < ALPHA)
        if repetition < COMPARED:
            alone = paired_bootstrap(matrix, rng, RESAMPLES)
            tally.add("p < 0.05, examples as units", alone.p < ALPHA)
    return tally


def list_rows(repetitions: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for each shape of groups and number of seeds."""
    designs = [(n, TOGETHER) for n in seeds] + [(5, 0.0), (5, 1.0)]
    for place, (name, sizes) in enumerate(SHAPES.items()):
        for n, together in designs:
            rng = np.random.default_rng([n, place, round(10 * together)])
            tally = simulate(replace(WORLD, sizes=sizes, together=together), n, repetitions, rng)
            effective = f"{count_freedom(sizes) + 1:.0f}"
            yield (
                name, str(sum(sizes)), effective, f"{together:g}", str(n), *show_shares(tally, NAMES)
            )  # fmt: skip

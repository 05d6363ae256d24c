"""One method has two kinds of seeds: how often the verdict says so, and coverage with and without.

The proposed method's seeds end up lower, by so many points, with the probability that the table gives; the
difference that is asked about is that of the mean over both kinds, here 0. 200 test examples. The last rows
have seeds of one kind, that differ as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cotdistill.analysis.crossed import paired_bootstrap
from cotdistill.analysis.modes import split_seeds

from .tally import ALPHA, RESAMPLES, Tally, show_shares
from .worlds import World

M = 200
NAMES = ("covers", "p < 0.05", "said", "covers, said", "covers, not said")
COLUMNS = ("experiment", "seeds", *NAMES)
WORLDS = {
    f"{share:.0%} of seeds {100 * drop:.0f} points lower": World(0.6, 0.0, low_share=share, low_drop=drop)
    for share, drop in ((0.5, 0.24), (0.3, 0.24), (0.2, 0.24), (0.5, 0.12))
} | {
    "one kind, SD 5 points": World(0.6, 0.0, seed_method=0.25),
    "one kind, SD 12 points": World(0.6, 0.0, seed_method=0.65),
}


def simulate(world: World, n: int, repetitions: int, rng: np.random.Generator) -> Tally:
    """Return how often each of NAMES happened."""
    tally = Tally()
    for _ in range(repetitions):
        sides = world.draw(n, M, rng)
        found = paired_bootstrap(sides[0].astype(np.float64) - sides[1], rng, RESAMPLES)
        said = any(split_seeds(side.mean(axis=1), M) is not None for side in sides)
        covers = found.low - 1e-12 <= world.difference <= found.high + 1e-12
        tally.add("covers", covers)
        tally.add("p < 0.05", found.p < ALPHA)
        tally.add("said", said)
        tally.add("covers, said" if said else "covers, not said", covers)
    return tally


def list_rows(repetitions: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for each world and number of seeds."""
    for place, (name, world) in enumerate(WORLDS.items()):
        for n in seeds:
            tally = simulate(world, n, repetitions, np.random.default_rng([n, place]))
            yield name, str(n), *show_shares(tally, NAMES)

"""Several proposed methods, no effect: in how many experiments is any method called better or worse?

Methods share the baseline's answers and the seeds. one family: Holm's correction over all proposed methods
and datasets, as the verdict has it. a family each: over the datasets of one method alone, for comparison. 200
test examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cotdistill.analysis.crossed import paired_bootstrap

from .intervals import WORLDS
from .tally import ALPHA, RESAMPLES, Tally, show_shares

M = 200
NAMES = ("one family", "a family each")
COLUMNS = ("methods", "datasets", "seeds", *NAMES)
NULLS = [world for name, world in WORLDS.items() if name.startswith("no effect")]


def simulate(methods: int, datasets: int, n: int, repetitions: int, rng: np.random.Generator) -> Tally:
    """Return how often each of NAMES had a false decision."""
    tally = Tally()
    for _ in range(repetitions):
        found = []
        for world in NULLS[:datasets]:
            *ours, theirs = world.draw_methods(methods, n, M, rng)
            found.append(
                [paired_bootstrap(each.astype(np.float64) - theirs, rng, RESAMPLES).p for each in ours]
            )
        # Holm's first step: any is rejected exactly when the smallest is
        tally.add("one family", methods * datasets * min(map(min, found)) < ALPHA)
        tally.add("a family each", datasets * min(map(min, found)) < ALPHA)
    return tally


def list_rows(repetitions: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for 1, 2 and 4 methods on 1 and 4 datasets."""
    for methods in (1, 2, 4):
        for datasets in (1, 4):
            for n in seeds:
                rng = np.random.default_rng([methods, datasets, n])
                tally = simulate(methods, datasets, n, repetitions, rng)
                yield str(methods), str(datasets), str(n), *show_shares(tally, NAMES)

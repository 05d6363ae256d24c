"""What the verdict says of power, beside the truth.

Normal effects, no difference. true: the difference in points that the test finds in 4 of 5 such experiments,
from the simulated experiments themselves. says: the median of the range of detectable differences. holds: the
range contains the true one. power at the ends: mean probability that the test finds a difference of the size
said. seeds, true: that a difference of 2 points takes, from the true variances. names: experiments that name
numbers of seeds for 2 points at both ends; holds, seeds: the range of seeds contains the true number. wrongly
excluded: the gain and loss that "the data exclude" leave out a true difference of 2 points; and the same
among the experiments that find no evidence of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cotdistill.analysis.crossed import Components, compute_components, paired_bootstrap
from cotdistill.analysis.power import MOST_SEEDS, POWER, count_seeds_needed, detectable, detectable_range

from .tally import RESAMPLES, Tally, show_shares

SIZE = 0.02
UNITS, NOISE = 0.05, 0.2
"""variances between test examples, and of the rest"""
NAMES = ("holds", "names", "holds, seeds", "wrongly excluded", "wrongly excluded, no evidence")
COLUMNS = (
    "SD of seeds", "seeds", "tests", "true", "says", "holds", "power at the ends", "seeds, true", "names",
    "holds, seeds", "wrongly excluded", "wrongly excluded, no evidence",
)  # fmt: skip


def count_true_seeds(deviation: float, m: int) -> float:
    """Return the seeds that find SIZE with probability POWER, where all variances are known."""
    known = Components(2, m, 0.0, NOISE + m * deviation**2, NOISE + 2 * UNITS, NOISE, m - 1)
    numbers = range(2, MOST_SEEDS + 1)
    return next((n for n in numbers if detectable(known, n_seeds=n) <= SIZE), math.inf)


def measure_power(
    means: NDArray[np.float64], halves: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of experiments that find a true difference of each of `sizes`.

    means, halves: of the experiments without a difference, which are moved by it.
    """
    return (np.abs(means + sizes[:, None]) > halves).mean(axis=1)


def find_true_size(means: NDArray[np.float64], halves: NDArray[np.float64]) -> float:
    """Return the true difference that these experiments find with probability POWER."""
    low, high = 0.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        enough = measure_power(means, halves, np.array([middle]))[0] >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def simulate(deviation: float, n: int, m: int, repetitions: int, rng: np.random.Generator) -> Sequence[str]:
    """Return the cells of a row, from `true` on."""
    means, halves = np.zeros(repetitions), np.zeros(repetitions)
    ranges, needed = np.zeros((repetitions, 2)), []
    for place in range(repetitions):
        effects = deviation * rng.normal(size=(n, 1)) + math.sqrt(UNITS) * rng.normal(size=m)
        matrix = effects + math.sqrt(NOISE) * rng.normal(size=(n, m))
        found = paired_bootstrap(matrix, rng, RESAMPLES)
        means[place], halves[place] = found.mean, found.high - found.mean
        components = compute_components(matrix)
        ranges[place] = detectable_range(components)
        needed.append(count_seeds_needed(components, SIZE))
    truth, seeds = find_true_size(means, halves), count_true_seeds(deviation, m)
    tally = Tally()
    for place, (low, high) in enumerate(needed):
        tally.add("holds", ranges[place, 0] <= truth <= ranges[place, 1])
        tally.add("names", high is not None)
        tally.add("holds, seeds", (low or math.inf) <= seeds <= (high or math.inf))
        wrong = abs(means[place]) > halves[place]
        tally.add("wrongly excluded", wrong)
        if abs(means[place] + SIZE) <= halves[place]:
            tally.add("wrongly excluded, no evidence", wrong)
    low, high = 100 * np.median(ranges, axis=0)
    ends = [100 * measure_power(means, halves, ranges[:, end]).mean() for end in (0, 1)]
    holds, *rest = show_shares(tally, NAMES)
    count = f"more than {MOST_SEEDS}" if math.isinf(seeds) else f"{seeds:g}"
    says, powers = f"{low:.1f} to {high:.1f}", f"{ends[0]:.0f} to {ends[1]:.0f}"
    return f"{100 * truth:.1f}", says, holds, powers, count, *rest


def list_rows(repetitions: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for each spread of seeds and number of seeds."""
    for m, deviations in ((200, (0.02, 0.05, 0.13)), (1000, (0.02,))):
        for deviation in deviations:
            for n in seeds:
                rng = np.random.default_rng([m, round(100 * deviation), n])
                cells = simulate(deviation, n, m, repetitions, rng)
                yield f"{100 * deviation:g}", str(n), str(m), *cells

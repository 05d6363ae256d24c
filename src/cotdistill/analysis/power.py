"""What a design of so many seeds and test examples can detect, and how many seeds a difference needs.

Both are ranges, as a few seeds tell their own variance badly. At each end they take the variances for the
true ones, and the test in use in `cotdistill.analysis.crossed` for its limit: normal effects, and the
examples' variance known, as there are many more examples than seeds. The power is then an integral over the
one thing left to chance, the estimate of the seeds' variance.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr

from cotdistill.analysis.crossed import SEPARATE, Components

POWER = 0.8
MOST_SEEDS = 1_000
"""more seeds than this are not looked for"""
MANY = 200
"""degrees of freedom from which on more make no difference"""

LEVELS = (np.arange(500) + 0.5) / 500
"""where the integrals over a chi-square are evaluated: midpoints of equal probability"""
SHARES = np.linspace(0, 1, 17)
"""shares of the seeds in the variance, between which critical values are interpolated"""


def detectable(
    found: Components, alpha: float = 0.05, power: float = POWER, n_seeds: int | None = None
) -> float:
    """Return the true difference that the two-sided test at `alpha` would find with probability `power`.

    n_seeds: of the design; default: as found. With one seed it counts the noise of the test set alone, so
    the truth is larger. NaN where nothing varied: identical answers say nothing about power. Same unit as the
    differences; may be more than 1, which no accuracy can reach.
    """
    n = found.n_seeds if n_seeds is None else n_seeds
    between = 0.0 if math.isnan(found.seeds) else found.seeds
    seeds = between / n + found.noise / (n * found.n_units)
    units = found.units / found.n_units
    if seeds + units == 0:
        return math.nan
    share = seeds / (seeds + units)
    return math.sqrt(seeds + units) * _shift(share, min(max(n - 1, 1), MANY), alpha, power)


def _shift(share: float, freedom: int, alpha: float, power: float) -> float:
    """Return the true difference, in standard errors of the mean, that is found with probability `power`.

    share: of the seeds' part in the variance of the mean; freedom: of the estimate of that part.
    """
    from scipy.optimize import brentq

    seeds = share * chdtri(freedom, LEVELS) / freedom
    estimated = seeds + 1 - share
    limits = np.sqrt(estimated) * np.interp(seeds / estimated, SHARES, _compute_critical(freedom, alpha))

    def lacking(shift: float) -> float:
        return float(np.mean(ndtr(shift - limits) + ndtr(-shift - limits))) - power

    return float(brentq(lacking, 0.0, float(limits.max()) + 8, xtol=1e-6))


@functools.lru_cache(maxsize=256)
def _compute_critical(freedom: int, alpha: float) -> NDArray[np.float64]:
    """Return critical values, in estimated standard errors, for each of SHARES.

    See `crossed.resample_deviations`."""
    ratio = SHARES[:, None]
    joint = _spread(1 / np.maximum(ratio**2 / freedom, 1e-9))
    first = SEPARATE * _spread(freedom) + (1 - SEPARATE) * joint
    second = SEPARATE + (1 - SEPARATE) * joint
    spread = np.sqrt(ratio * first**2 + (1 - ratio) * second**2)
    low, high = np.zeros(len(SHARES)), np.full(len(SHARES), 8 * float(spread.max()))
    for _ in range(40):
        middle = (low + high) / 2
        beyond = np.mean(2 * ndtr(-middle[:, None] / spread), axis=1) > alpha
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return high


def _spread(freedom: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(freedom / chdtri(freedom, LEVELS))


def bound_variances(found: Components, level: float = 0.9) -> tuple[Components, Components]:
    """Return the same design with both variances at the lower and upper ends of their intervals.

    A few seeds tell a variance badly: five leave its root uncertain by a factor of 3.6 (chi-square interval
    with n - 1 degrees of freedom). Test examples are many, but what they leave uncertain decides how many
    seeds it takes where hardly any number is enough. With one seed only the examples' variance has an
    interval.
    """
    tails = (1 - level) / 2, (1 + level) / 2  # chdtri takes the upper tail
    low, high = (
        replace(
            found,
            seed_square=found.seed_square * _stretch(found.n_seeds - 1, tail),
            unit_square=found.unit_square * _stretch(found.freedom, tail),
        )
        for tail in tails
    )
    return low, high


def _stretch(freedom: float, tail: float) -> float:
    """Return the end of a variance's interval, as a multiple of its estimate; 1 without any freedom."""
    return freedom / float(chdtri(freedom, tail)) if freedom else 1.0


def detectable_range(found: Components, alpha: float = 0.05, power: float = POWER) -> tuple[float, float]:
    """Return between which numbers `detectable` lies, by the intervals of the variances.

    Both are NaN where nothing varied.
    """
    low, high = (detectable(each, alpha, power) for each in bound_variances(found))
    return low, high


def count_seeds_needed(
    found: Components, size: float, alpha: float = 0.05, power: float = POWER
) -> tuple[int | None, int | None]:
    """Return between how many and how many seeds find a true difference of `size` with probability `power`.

    size: above 0, as a fraction; it is to be named beforehand: seeds for the observed difference would
    mistake luck for an effect. None in place of a number: no number up to MOST_SEEDS is enough. More seeds
    never shrink the noise of a finite test set. Both None with one seed, which tells nothing of seeds.
    """
    if found.n_seeds == 1:
        return None, None
    low, high = (_count_seeds(each, size, alpha, power) for each in bound_variances(found))
    return low, high


def _count_seeds(found: Components, size: float, alpha: float, power: float) -> int | None:
    if size < _limit(found, alpha, power) or not detectable(found, alpha, power, MOST_SEEDS) <= size:
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if detectable(found, alpha, power, middle) > size else (low, middle)
    return high


def _limit(found: Components, alpha: float, power: float) -> float:
    """Return what endlessly many seeds could detect on these test examples."""
    return math.sqrt(found.units / found.n_units) * _shift(0.0, MANY, alpha, power)

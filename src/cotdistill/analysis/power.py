"""What a design of so many seeds and test examples can detect, and how many seeds a difference needs.

Both take the variances that `cotdistill.analysis.crossed` estimates for the true ones, and the test in use
there for its limit: normal effects, and the examples' variance known, as there are many more examples than
seeds. The power is then an integral over the one thing left to chance, the estimate of the seeds' variance.
"""

from __future__ import annotations

import functools
import math

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
    seeds = between / n + found.noise / (n * found.n_examples)
    examples = found.examples / found.n_examples
    if seeds + examples == 0:
        return math.nan
    share = seeds / (seeds + examples)
    return math.sqrt(seeds + examples) * _shift(share, min(max(n - 1, 1), MANY), alpha, power)


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


def count_seeds_needed(
    found: Components, alpha: float = 0.05, power: float = POWER
) -> tuple[int | None, str]:
    """Return how many seeds find the observed difference, were it the true one, with probability `power`.

    Returns (number, '') or (None, why not). More seeds never shrink the noise of a finite test set: where
    the difference is below what an endless row of seeds could detect, no number is enough.
    """
    if found.n_seeds == 1:
        return None, "the variation between seeds is unknown with one seed"
    size = abs(found.mean)
    if size == 0:
        return None, "the observed difference is 0"
    if size < _limit(found, alpha, power):
        return None, f"{found.n_examples} test examples are too few to show it, however many the seeds"
    low, high = 1, 2
    while detectable(found, alpha, power, high) > size:
        if high >= MOST_SEEDS:
            return None, f"it would take more than {MOST_SEEDS}"
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if detectable(found, alpha, power, middle) > size else (low, middle)
    return high, ""


def _limit(found: Components, alpha: float, power: float) -> float:
    """Return what endlessly many seeds could detect on these test examples."""
    return math.sqrt(found.examples / found.n_examples) * _shift(0.0, MANY, alpha, power)

"""Intervals over seeds: how far a mean would move if the training were repeated with other seeds.

The intervals cover the variation between seeds alone. The test set is the same for every seed, so
the error of measuring on a finite test set is not in them.

What a reader is shown of an interval is decided here alone, by `restrict`: no bound that the quantity cannot
have, no width of 0 that looks like certainty, and nothing where there are too few seeds to say anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from scipy.stats import t as student_t

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""fewest seeds that have an interval: with two, Student's t is 12.7 standard errors wide to each side"""
TOO_FEW = "too few seeds"
ALL_EQUAL = "all seeds equal"
CUT = "cut"
CUT_MEANS = "cut: the interval reaches past what is possible, and ends there"
"""the note on intervals that `is_cut`"""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds with its standard deviation and confidence bounds, in the values' unit.

    `mean` is NaN for n = 0; `sd`, `low` and `high` are NaN for n < 2: one seed says nothing about
    the variation between seeds.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def t_interval(values: Iterable[float], confidence: float = CONFIDENCE) -> Interval:
    """Return Student's t interval of the mean: `mean ± t(n-1) * sd / sqrt(n)`, sd with n - 1 (Gosset 1908).

    values: one number a seed, any unit. The bounds are not cut at 0 or 1, see `restrict`. Raises ValueError
    for a value that is not finite, as dropping it would make `n` a lie.
    """
    numbers = [float(value) for value in values]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"a value is not finite: {numbers}")
    n = len(numbers)
    if n == 0:
        return Interval(0, math.nan, math.nan, math.nan, math.nan)
    # a mean of equal numbers differs from them by rounding
    mean = math.fsum(numbers) / n if min(numbers) < max(numbers) else numbers[0]
    if n == 1:
        return Interval(1, mean, math.nan, math.nan, math.nan)
    sd = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1))
    half = float(student_t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(n, mean, sd, mean - half, mean + half)


def restrict(found: Interval, least: float, most: float, least_seeds: int = LEAST_SEEDS) -> Interval:
    """Return an interval as a reader is shown it: its bounds within what is possible, or NaN.

    least, most: what the quantity can be. The bounds are NaN with fewer than `least_seeds` seeds, and where
    they are equal: that nothing varied in a few seeds does not mean that nothing ever would.
    """
    if found.n < least_seeds or not found.low < found.high:
        return replace(found, low=math.nan, high=math.nan)
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def measure_interval(values: Iterable[float], least: float = -math.inf, most: float = math.inf) -> Interval:
    """Return Student's t interval as a reader is shown it, see `t_interval` and `restrict`."""
    return restrict(t_interval(values), least, most)


def explain_absence(n: int, sd: float) -> str:
    """Return why a mean over `n` seeds, at least 1, has no interval."""
    return ALL_EQUAL if sd == 0 else TOO_FEW


def is_cut(low: float, high: float, least: float, most: float) -> bool:
    """Return whether `restrict` has cut an interval: a bound is the very least or most that can be."""
    return low == least or high == most


def subtract_by_seed(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict[int, float]:
    """Return `values[seed] - baseline[seed]` for the seeds that both have, in the order of the seeds.

    One seed means one subset, one initialisation and one order of examples for every method, which
    is what makes the differences pairs.
    """
    return {seed: values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())}

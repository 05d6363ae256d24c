"""Intervals over seeds: how far a mean would move if the training were repeated with other seeds.

The intervals cover the variation between seeds alone. The test set is the same for every seed, so
the error of measuring on a finite test set is not in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.stats import t as student_t

CONFIDENCE = 0.95


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

    values: one number a seed, any unit. The bounds are not cut at 0 or 1: with few seeds an
    interval of accuracies may reach past 100 %. Raises ValueError for a value that is not finite,
    as dropping it would make `n` a lie.
    """
    numbers = [float(value) for value in values]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"a value is not finite: {numbers}")
    n = len(numbers)
    if n == 0:
        return Interval(0, math.nan, math.nan, math.nan, math.nan)
    mean = math.fsum(numbers) / n
    if n == 1:
        return Interval(1, mean, math.nan, math.nan, math.nan)
    sd = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1))
    half = float(student_t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(n, mean, sd, mean - half, mean + half)


def subtract_by_seed(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict[int, float]:
    """Return `values[seed] - baseline[seed]` for the seeds that both have, in the order of the seeds.

    One seed means one subset, one initialisation and one order of examples for every method, which
    is what makes the differences pairs.
    """
    return {seed: values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())}

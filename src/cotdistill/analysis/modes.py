"""Tell where the seeds of one method fall into two groups: then their mean says little of either."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cotdistill.analysis.words import format_percent, join_names

LEAST = 4
"""seeds, two a group, below which nothing is told"""
SURE = 20
"""seeds from which intervals cover 93% and more, also where a fifth of the seeds end up far below the rest"""
LEVEL = 0.05
"""how often seeds of one bell-shaped group are taken for two"""
DRAWN = 20_000


def split_seeds(accuracies: ArrayLike, n_examples: int) -> tuple[list[float], list[float]] | None:
    """Return the two groups that the accuracies of seeds fall into, each sorted; None where it is one group.

    accuracies: fractions, one a seed. n_examples: test examples they were counted on. Two groups are seen
    where the best cut leaves a smaller share of the squared deviations within groups than one sample of 20
    from a normal distribution does, and where the gap is twice what the counting of one seed's answers may
    be off (standard error of a difference of two fractions): accuracies are whole numbers of examples, which
    tie. Each group has at least two seeds.
    """
    values = np.sort(np.asarray(accuracies, dtype=np.float64))
    if len(values) < LEAST:
        return None
    shares = _share_within(values[None, :])[0]
    cut = int(np.argmin(shares)) + 2
    rate = float(values.mean())
    noise = math.sqrt(2 * rate * (1 - rate) / n_examples)
    gap = float(values[cut] - values[cut - 1])
    if gap <= 2 * noise or float(shares.min()) >= _find_critical_share(len(values)):
        return None
    return values[:cut].tolist(), values[cut:].tolist()


def describe_two_groups(name: str, correct: NDArray[np.bool_]) -> str:
    """Return the groups of one method's seeds in words; an empty string where they are one group.

    correct: seeds x examples.
    """
    found = split_seeds(correct.mean(axis=1), correct.shape[1])
    if found is None:
        return ""
    low, high = (", ".join(map(format_percent, group)) for group in found)
    return f"{name} ({join_names([low, high])}%)"


def _share_within(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of squared deviations that each cut leaves within the groups; rows are sorted samples.

    Cuts leave at least two values on each side.
    """
    n = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    total = (centred**2).sum(axis=1, keepdims=True)
    below = np.cumsum(centred, axis=1)[:, 1 : n - 2]
    sizes = np.arange(2, n - 1)
    # between groups: n_1 m_1^2 + n_2 m_2^2, where the sums of both groups are opposite
    between = below**2 * (1 / sizes + 1 / (n - sizes))
    return 1 - np.divide(between, total, out=np.zeros_like(between), where=total > 0)


@functools.lru_cache
def _find_critical_share(n: int) -> float:
    samples = np.sort(np.random.default_rng(n).normal(size=(DRAWN, n)), axis=1)
    return float(np.quantile(_share_within(samples).min(axis=1), LEVEL))

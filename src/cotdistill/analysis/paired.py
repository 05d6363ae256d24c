"""Tests of paired outcomes: sign flips over seeds, McNemar over examples, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

EXACT = 2**13
"""up to so many sign patterns are all looked at; beyond, as many are drawn"""


def permutation_p(differences: ArrayLike, rng: np.random.Generator) -> float:
    """Return the two-sided p of the paired permutation test: without effect each seed's sign is arbitrary.

    differences: one number a seed. Exact up to 13 seeds, by `scipy.stats.permutation_test` (Fisher 1935). It
    asks about the seeds alone and keeps the test examples fixed. Raises ValueError for no seed.
    """
    from scipy.stats import permutation_test

    values = np.sort(np.asarray(differences, dtype=np.float64))
    if len(values) == 0:
        raise ValueError("a permutation test needs at least one difference")
    if len(values) == 1:
        return 1.0
    result = permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=EXACT, rng=rng
    )
    return float(result.pvalue)


def least_permutation_p(n_seeds: int) -> float:
    """Return the smallest p of `permutation_p`: 2 of the 2^n sign patterns are the most extreme."""
    return max(2.0 ** (1 - n_seeds), 2 / (EXACT + 1))


def mcnemar_p(proposed: ArrayLike, baseline: ArrayLike, groups: ArrayLike) -> float:
    """Return the two-sided p of McNemar's exact test (1947), with groups of examples as its units.

    proposed, baseline: correct or not, by example, of one seed. groups: a name for each example. Without a
    difference of the two models the sign of what a group's examples add up to is arbitrary, as that of an
    example is in McNemar's test: where each is a group of its own, the two are the same. All sign patterns
    are counted (Fisher's randomisation test, 1935), in time groups x examples that differ. It asks about
    these two trained models, not about the methods.
    """
    ours, theirs = np.asarray(proposed, dtype=np.int64), np.asarray(baseline, dtype=np.int64)
    _, places = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    sums = np.bincount(places, weights=ours - theirs).astype(np.int64)
    # chances of each total, from the least, -sum |sums|, in steps of 1
    chances = np.ones(1)
    for size in np.abs(sums[sums != 0]):
        wider = np.zeros(len(chances) + 2 * size)
        wider[: len(chances)] += chances / 2
        wider[2 * size :] += chances / 2
        chances = wider
    most = len(chances) // 2
    totals = np.abs(np.arange(-most, most + 1))
    return float(min(1.0, chances[totals >= abs(int(sums.sum()))].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several (Holm 1979), in the order given; none for none."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []

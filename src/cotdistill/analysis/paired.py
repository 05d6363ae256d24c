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


def mcnemar_p(proposed: ArrayLike, baseline: ArrayLike) -> float:
    """Return the two-sided p of McNemar's exact test (1947): does each win half of what differs?

    proposed, baseline: correct or not, by example, of one seed. It asks about these two trained models, not
    about the methods.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    ours, theirs = np.asarray(proposed, dtype=bool), np.asarray(baseline, dtype=bool)
    table = [
        [int((ours & theirs).sum()), int((ours & ~theirs).sum())],
        [int((~ours & theirs).sum()), int((~ours & ~theirs).sum())],
    ]
    return float(mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several (Holm 1979), in the order given; none for none."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []

"""Summaries over datasets against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cotdistill.analysis.across import (
    improvement_interval,
    probability_of_improvement,
)

RUNS = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=2, max_size=6)
SCORES = st.lists(RUNS, min_size=2, max_size=4)


@given(st.lists(st.tuples(RUNS, RUNS), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_probability_of_improvement_is_mann_whitney(datasets: list[tuple[list[float], list[float]]]) -> None:
    ours, theirs = [a for a, _ in datasets], [b for _, b in datasets]
    expected = np.mean([stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in datasets])
    assert probability_of_improvement(ours, theirs) == pytest.approx(expected)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - expected)


@given(SCORES)
@settings(max_examples=20, deadline=None)
def test_the_interval_ignores_the_order_of_runs(scores: list[list[float]]) -> None:
    backwards = [runs[::-1] for runs in scores]
    found = improvement_interval(scores, backwards, np.random.default_rng(0))
    assert found == improvement_interval(backwards, scores, np.random.default_rng(0))
    assert 0 <= found[0] <= found[1] <= 1


def test_runs_that_do_not_vary() -> None:
    rng = np.random.default_rng(0)
    assert improvement_interval([[0.6, 0.6]], [[0.5, 0.5]], rng) == (1, 1)
    assert improvement_interval([[0.5]], [[0.5]], rng) == (0.5, 0.5)


def test_the_interval_against_scipys_bootstrap() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.6, 0.1, size=12), rng.normal(0.55, 0.1, size=12)

    def improvement(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        first, second = np.moveaxis(first, axis, -1), np.moveaxis(second, axis, -1)
        return np.mean(first[..., :, None] > second[..., None, :], axis=(-2, -1))

    reference = stats.bootstrap(
        (ours, theirs), improvement, n_resamples=5000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    found = improvement_interval([ours], [theirs], np.random.default_rng(3))
    assert found == pytest.approx((reference.low, reference.high), abs=0.03)

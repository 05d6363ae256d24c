"""Summaries over datasets against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cotdistill.analysis.across import (
    improvement_interval,
    interquartile_interval,
    interquartile_mean,
    probability_of_improvement,
)

RUNS = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=2, max_size=6)
SCORES = st.lists(RUNS, min_size=2, max_size=4)


def test_interquartile_mean_by_hand() -> None:
    # of 8 runs the two lowest and the two highest do not count
    assert interquartile_mean([[0.1, 0.9, 0.5, 0.4], [0.0, 1.0, 0.6, 0.3]]) == pytest.approx(0.45)


@given(st.lists(st.tuples(RUNS, RUNS), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_probability_of_improvement_is_mann_whitney(datasets: list[tuple[list[float], list[float]]]) -> None:
    ours, theirs = [a for a, _ in datasets], [b for _, b in datasets]
    expected = np.mean([stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in datasets])
    assert probability_of_improvement(ours, theirs) == pytest.approx(expected)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - expected)


@given(SCORES)
@settings(max_examples=20, deadline=None)
def test_intervals_ignore_the_order_of_runs(scores: list[list[float]]) -> None:
    backwards = [runs[::-1] for runs in scores]
    found = interquartile_interval(scores, np.random.default_rng(0))
    assert found == interquartile_interval(backwards, np.random.default_rng(0))
    assert min(map(min, scores)) <= found[0] <= found[1] <= max(map(max, scores))
    against = improvement_interval(scores, backwards, np.random.default_rng(0))
    assert 0 <= against[0] <= against[1] <= 1


def test_runs_that_do_not_vary() -> None:
    rng = np.random.default_rng(0)
    assert interquartile_interval([[0.5, 0.5], [0.5, 0.5]], rng) == (0.5, 0.5)
    assert improvement_interval([[0.6, 0.6]], [[0.5, 0.5]], rng) == (1, 1)
    assert improvement_interval([[0.5]], [[0.5]], rng) == (0.5, 0.5)


def test_the_interval_against_scipys_bootstrap() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, size=(2, 12))

    def middle(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        return stats.trim_mean(np.concatenate([first, second], axis=axis), 0.25, axis=axis)

    reference = stats.bootstrap(
        tuple(values), middle, n_resamples=5000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    found = interquartile_interval(list(values), np.random.default_rng(3))
    assert found == pytest.approx((reference.low, reference.high), abs=0.008)

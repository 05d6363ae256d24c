"""Intervals against scipy's t test, which is a separate implementation, and against a printed table."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cotdistill.analysis.intervals import (
    ALL_EQUAL,
    TOO_FEW,
    explain_absence,
    is_cut,
    measure_interval,
    subtract_by_seed,
    t_interval,
)

PERCENTS = st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=2, max_size=12)


@given(PERCENTS.filter(lambda values: len(set(values)) > 1))
def test_interval_is_that_of_the_t_test(values: list[float]) -> None:
    ours = t_interval(values)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert ours.n == len(values)


def test_interval_with_the_printed_t_value() -> None:
    # t(0.975, 4) = 2.776 in any printed table; sd of 1..5 is sqrt(2.5)
    ours = t_interval([1, 2, 3, 4, 5])
    assert ours.mean == 3
    assert ours.sd == pytest.approx(math.sqrt(2.5))
    assert ours.high - ours.mean == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)


def test_few_values() -> None:
    assert t_interval([]).n == 0 and math.isnan(t_interval([]).mean)
    one = t_interval([0.5])
    assert (one.n, one.mean) == (1, 0.5)
    assert all(math.isnan(bound) for bound in (one.sd, one.low, one.high))
    same = t_interval([0.25, 0.25])
    assert (same.low, same.high) == (0.25, 0.25)


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        t_interval([0.5, math.nan])


def test_pairs_are_the_common_seeds() -> None:
    ours, baseline = {0: 0.5, 1: 0.75, 3: 0.5}, {1: 0.5, 3: 0.375, 4: 0.9}
    assert subtract_by_seed(ours, baseline) == {1: 0.25, 3: 0.125}
    paired = t_interval(subtract_by_seed(ours, baseline).values())
    reference = stats.ttest_rel([0.75, 0.5], [0.5, 0.375]).confidence_interval(0.95)
    assert paired.n == 2
    assert (paired.low, paired.high) == pytest.approx((reference.low, reference.high))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_what_is_shown_is_possible_and_has_a_width(values: list[float]) -> None:
    whole, shown = t_interval(values), measure_interval(values, 0, 1)
    assert (shown.n, shown.mean) == (whole.n, whole.mean)
    if len(values) < 3 or len(set(values)) == 1:
        assert math.isnan(shown.low) and math.isnan(shown.high)
    elif not math.isnan(shown.low):
        assert 0 <= shown.low < shown.high <= 1
        assert (shown.low, shown.high) == (max(whole.low, 0), min(whole.high, 1))
        assert is_cut(shown.low, shown.high, 0, 1) == (whole.low <= 0 or whole.high >= 1)


@pytest.mark.parametrize("value", [0.1, 0.4, 1 / 3, 0.0, 1.0])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_equal_seeds_are_told_from_rounding(value: float, n: int) -> None:
    shown = measure_interval([value] * n, 0, 1)
    assert (shown.mean, shown.sd) == (value, 0) and math.isnan(shown.low)
    assert explain_absence(n, shown.sd) == ALL_EQUAL


def test_too_few_seeds_have_no_interval() -> None:
    for values in ([0.5], [0.4, 0.6], [0.0, 1.0]):
        shown = measure_interval(values, 0, 1)
        assert math.isnan(shown.low) and explain_absence(shown.n, shown.sd) == TOO_FEW

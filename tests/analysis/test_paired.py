"""Paired tests against brute force and other implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cotdistill.analysis.paired import holm, least_permutation_p, mcnemar_p, permutation_p

COUNTS = st.lists(st.integers(-20, 20), min_size=2, max_size=6)


def flipped(values: list[int]) -> float:
    """Share of all sign patterns whose sum is at least as far from 0."""
    size = abs(sum(values))
    patterns = list(itertools.product([1, -1], repeat=len(values)))
    extreme = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) >= size for signs in patterns]
    return sum(extreme) / len(patterns)


@given(COUNTS)
@settings(max_examples=50, deadline=None)
def test_permutation_is_the_share_of_sign_patterns(values: list[int]) -> None:
    ours = permutation_p(values, np.random.default_rng(0))
    assert ours == pytest.approx(min(flipped(values), 1))
    assert ours == permutation_p(values[::-1], np.random.default_rng(0))
    assert ours >= least_permutation_p(len(values)) - 1e-12


def test_the_least_p_of_a_permutation_test() -> None:
    assert least_permutation_p(5) == 0.0625 == permutation_p([1, 2, 3, 4, 5], np.random.default_rng(0))
    assert least_permutation_p(1) == 1 == permutation_p([3], np.random.default_rng(0))
    many = permutation_p(np.ones(40), np.random.default_rng(0))
    assert many == pytest.approx(least_permutation_p(40), rel=0.01)
    with pytest.raises(ValueError, match="at least one"):
        permutation_p([], np.random.default_rng(0))


def test_more_seeds_than_can_be_enumerated() -> None:
    values = np.random.default_rng(1).normal(0.4, 1, size=30)
    reference = stats.ttest_1samp(values, 0).pvalue
    assert permutation_p(values, np.random.default_rng(0)) == pytest.approx(reference, abs=0.02)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_mcnemar_is_a_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    wins, losses = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1
    alone = range(len(pairs))
    assert mcnemar_p(ours, theirs, alone) == pytest.approx(expected)
    assert mcnemar_p(ours, ours, alone) == 1


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_mcnemar_of_groups_is_the_share_of_sign_patterns(examples: list[tuple[bool, bool, int]]) -> None:
    ours, theirs, groups = zip(*examples, strict=True)
    sums = [sum(a - b for a, b, own in examples if own == group) for group in range(6)]
    assert mcnemar_p(ours, theirs, groups) == pytest.approx(flipped(sums))


def test_mcnemar_does_not_take_copies_of_an_example_for_more_evidence() -> None:
    ours, theirs = np.repeat([True] * 8, 4), np.repeat([False] * 8, 4)
    once = mcnemar_p(ours[::4], theirs[::4], range(8))
    assert mcnemar_p(ours, theirs, np.repeat(range(8), 4)) == once == 2 / 2**8
    assert mcnemar_p(ours, theirs, range(32)) < once / 1e6


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_holm_steps_down(p_values: list[float]) -> None:
    ours, running = holm(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1, p_values[index] * (len(p_values) - rank)))
        assert ours[index] == pytest.approx(running)
    assert sorted(holm(p_values[::-1])) == pytest.approx(sorted(ours))


def test_holm_of_nothing() -> None:
    assert holm([]) == [] and holm([0.03]) == [pytest.approx(0.03)]

"""Two groups of seeds: seen where they are, seldom where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.analysis.modes import _share_within, describe_two_groups, split_seeds


def test_two_groups_of_five_seeds() -> None:
    assert split_seeds([0.78, 0.5, 0.74, 0.54, 0.52], 210) == ([0.5, 0.52, 0.54], [0.74, 0.78])


@pytest.mark.parametrize("seeds", [[0.5, 0.9], [0.5, 0.5, 0.9], [0.6, 0.6, 0.605, 0.605], [0.5] * 6])
def test_few_seeds_and_ties_are_no_groups(seeds: list[float]) -> None:
    assert split_seeds(seeds, 200) is None


@given(st.lists(st.floats(0, 1), min_size=4, max_size=9))
def test_the_share_within_groups_against_a_plain_sum(seeds: list[float]) -> None:
    values = np.sort(np.array(seeds))
    total = ((values - values.mean()) ** 2).sum()
    if total < 1e-9:
        return
    expected = [
        sum(((part - part.mean()) ** 2).sum() for part in (values[:cut], values[cut:])) / total
        for cut in range(2, len(values) - 1)
    ]
    assert _share_within(values[None, :])[0] == pytest.approx(expected, abs=1e-6)


def test_bell_shaped_seeds_are_seldom_taken_for_two_groups() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 5, 10):
        taken = [split_seeds(np.clip(rng.normal(0.6, 0.13, n), 0, 1), 200) for _ in range(500)]
        assert sum(found is not None for found in taken) < 0.08 * 500


def test_the_groups_in_words() -> None:
    correct = np.zeros((4, 10), dtype=bool)
    correct[2:] = True
    assert describe_two_groups("dss", correct) == "dss (0.0, 0.0 and 100.0, 100.0%)"
    assert describe_two_groups("dss", correct[:3]) == ""

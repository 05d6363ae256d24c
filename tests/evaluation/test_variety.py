"""The commonest answer's share, and when a run counts as collapsed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.evaluation.variety import COLLAPSED, is_collapsed, measure_variety
from cotdistill.runs.documents import Answer


def write(pairs: Sequence[tuple[str, str]]) -> list[Answer]:
    return [Answer(str(n), "q", gold, text, gold == text, 0.5) for n, (gold, text) in enumerate(pairs)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "a", "b", "c"])), min_size=1))
def test_the_shares_are_those_of_a_count_by_hand(pairs: list[tuple[str, str]]) -> None:
    golds, texts = [gold for gold, _ in pairs], [text for _, text in pairs]
    found = measure_variety(write(pairs))
    assert found["distinct"] == len(set(texts))
    assert found["commonest_share"] == max(texts.count(text) for text in texts) / len(texts)
    assert found["commonest_gold_share"] == max(golds.count(gold) for gold in golds) / len(golds)


@pytest.mark.parametrize(
    ("answers", "golds", "collapsed"),
    [
        ("a" * 19 + "b", "ab" * 10, True),  # exactly COLLAPSED of them
        ("a" * 18 + "bb", "ab" * 10, False),
        ("a" * 20, "a" * 19 + "b", False),  # as gold is nearly one label too
        ("a" * 20, "a" * 18 + "bb", True),
        ([""] * 20, "ab" * 10, True),
    ],
)
def test_a_run_that_answers_one_thing_has_collapsed(
    answers: Sequence[str], golds: str, collapsed: bool
) -> None:
    assert COLLAPSED == 0.95
    assert is_collapsed(measure_variety(write(list(zip(golds, answers, strict=True))))) is collapsed


def test_without_examples_nothing_is_known() -> None:
    assert is_collapsed(measure_variety([])) is None
    assert is_collapsed({}) is None

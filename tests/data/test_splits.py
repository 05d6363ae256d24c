"""The validation cut, nested subsets, and the generated dataset."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.data import SPLITS, adapter, compute_checksum, load
from cotdistill.data.rows import Row
from cotdistill.data.splits import choose_subset, cut_valid


@pytest.mark.parametrize("n", [2, 11, 800])
def test_cut_is_the_published_one(n: int) -> None:
    parts = Dataset.from_list([{"x": i} for i in range(n)]).train_test_split(test_size=0.1, seed=0)
    assert cut_valid(n) == (parts["train"]["x"][:], parts["test"]["x"][:])


@given(st.integers(0, 300), st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 5))
def test_subsets_are_nested(n: int, one: float, other: float, seed: int) -> None:
    small, large = sorted([one, other])
    inner, outer = choose_subset(n, small, seed, "cqa"), choose_subset(n, large, seed, "cqa")
    assert outer[: len(inner)] == inner and len(set(outer)) == len(outer)
    assert set(outer) <= set(range(n)) and abs(len(outer) - large * n) < 1 + 1e-9
    assert sorted(choose_subset(n, 1, seed, "cqa")) == list(range(n))


def test_subset_sizes_and_axes() -> None:
    assert len(choose_subset(100, 0.07, 0, "cqa")) == 7 and 0.07 * 100 > 7
    assert len(choose_subset(8766, 0.125, 0, "cqa")) == math.ceil(8766 / 8)
    assert choose_subset(100, 0.5, 0, "cqa") == choose_subset(100, 0.5, 0, "cqa")
    other_seed = choose_subset(100, 0.5, 1, "cqa")
    assert choose_subset(100, 0.5, 0, "cqa") != other_seed != choose_subset(100, 0.5, 1, "svamp")
    assert choose_subset(10, 0.5, 0, "cqa") == [1, 6, 8, 9, 7]  # the same on every machine


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, math.nan, math.inf])
def test_bad_fraction(fraction: float) -> None:
    with pytest.raises(UserError, match="expected a number above 0 and at most 1"):
        choose_subset(10, fraction, 0, "cqa")


@pytest.fixture(scope="module")
def demo() -> dict[str, list[Row]]:
    return adapter("demo").read(Path("nowhere"))


def _parts(row: Row) -> tuple[str, str]:
    found = re.fullmatch(r"(\w+) of a (\w+)\?", row["input"])
    assert found
    return found[1], found[2]


def test_demo_is_the_same_everywhere(demo: dict[str, list[Row]]) -> None:
    assert compute_checksum(load("demo", "nowhere")) == "d048c80c987538e0"
    assert {split: len(demo[split]) for split in SPLITS} == {"train": 175, "valid": 56, "test": 259}


def test_demo_has_each_question_once(demo: dict[str, list[Row]]) -> None:
    questions = [_parts(row) for rows in demo.values() for row in rows]
    assert len(set(questions)) == len(questions) == 490
    assert len({creature for _, creature in questions}) == 70
    assert all(re.fullmatch(r"([b-df-hj-np-tv-z][aeiou]){2}", creature) for _, creature in questions)
    options = {tuple(row["options"]) for rows in demo.values() for row in rows}
    assert len(options) == 7 and all(len(set(values)) == 7 for values in options)


def test_demo_can_be_answered_from_train(demo: dict[str, list[Row]]) -> None:
    kinds, values = {}, {}
    for row in demo["train"]:
        prop, creature = _parts(row)
        found = re.fullmatch(rf"a {creature} is a (\w+), so (\w+)\.", row["rationale"])
        assert found and found[2] == row["label"]
        assert kinds.setdefault(creature, found[1]) == found[1]
        assert values.setdefault((found[1], prop), row["label"]) == row["label"]
    assert len(kinds) == 70 and len(values) == 49
    for row in demo["valid"] + demo["test"]:
        prop, creature = _parts(row)
        assert values[kinds[creature], prop] == row["label"]


def test_demo_teacher_is_wrong_now_and_then(demo: dict[str, list[Row]]) -> None:
    wrong = {split: sum(row["teacher_label"] != row["label"] for row in rows) for split, rows in demo.items()}
    assert wrong == {"train": 14, "valid": 4, "test": 21}
    for rows in demo.values():
        for row in rows:
            assert row["teacher_label"] in row["options"] and row["rationale"].endswith(f" {row['label']}.")

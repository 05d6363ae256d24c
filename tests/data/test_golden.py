"""The published data: row counts and the teacher's accuracy, split by split, as measured independently."""

from __future__ import annotations

from pathlib import Path

import pytest

from cotdistill.data import adapter, load, measure_teacher
from cotdistill.data.answers import is_right
from cotdistill.data.release import resolve_root
from cotdistill.data.rows import Row

# dataset: split on disk: rows, right teacher labels, outputs without a label
GOLDEN = {
    "cqa": {"train": (9741, 7234, 3), "test": (1221, 943, 0)},
    "svamp": {"train": (800, 586, 13), "test": (200, 148, 2)},
    "anli1": {"train": (1000, 756, 7), "valid": (1000, 668, 9), "test": (1000, 656, 10)},
    "esnli": {"train": (10000, 6986, 170), "valid": (9842, 7201, 4), "test": (9824, 7171, 0)},
}
SIZES = {
    "cqa": (8766, 975, 1221),
    "svamp": (720, 80, 200),
    "anli1": (1000, 1000, 1000),
    "esnli": (10000, 9842, 9824),
}


@pytest.fixture(scope="module")
def on_disk(dss_root: Path) -> dict[str, dict[str, list[Row]]]:
    root = resolve_root(dss_root)
    return {name: adapter(name).read(root) for name in GOLDEN}


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_and_teacher_accuracy(name: str, on_disk: dict[str, dict[str, list[Row]]]) -> None:
    kind = adapter(name).answer
    found = {
        split: (
            len(rows),
            sum(is_right(kind, row["teacher_label"], row["label"]) for row in rows),
            sum(row["teacher_label"] == "" for row in rows),
        )
        for split, rows in on_disk[name].items()
    }
    assert found == GOLDEN[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_split_sizes(name: str, dss_root: Path) -> None:
    splits = load(name, dss_root)
    assert tuple(len(splits[split]) for split in ("train", "valid", "test")) == SIZES[name]
    found = measure_teacher(splits, adapter(name).answer)
    golden = GOLDEN[name]
    assert sum(found[split]["n"] for split in found) == sum(rows for rows, _, _ in golden.values())
    assert sum(found[split]["correct"] for split in found) == sum(right for _, right, _ in golden.values())
    ids = [identity for split in splits.values() for identity in split["id"]]
    assert len(set(ids)) == len(ids)


def test_labels_outside_the_options(on_disk: dict[str, dict[str, list[Row]]]) -> None:
    # 448 and 46 PaLM labels are not, letter for letter, one of the five options
    outside = {
        split: sum(row["teacher_label"] not in row["options"] for row in rows)
        for split, rows in on_disk["cqa"].items()
    }
    assert outside == {"train": 448, "test": 46}


def test_first_rows(on_disk: dict[str, dict[str, list[Row]]]) -> None:
    cqa, esnli = on_disk["cqa"]["test"][0], on_disk["esnli"]["train"][0]
    assert cqa["input"].split("\n")[1:3] == ["Answer Choices:", "(a) british columbia"]
    assert cqa["rationale"].endswith("have the supplies that beavers need.")
    assert (cqa["label"], cqa["teacher_label"]) == ("wooded area", "wooded area")
    assert esnli["input"].count("</s>") == 1 and esnli["label"] == "neutral"
    svamp = on_disk["svamp"]["test"][0]
    assert svamp["label"] == "( 10.0 * 45.0 )" and svamp["options"] == []

"""What test shares with train and valid: from the prepared pairs to tables, verdict and notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from cotdistill.analysis.shared_data import list_data_limits, list_data_notes
from cotdistill.data.overlap import KINDS, Overlap, Shared
from cotdistill.data.overlap_report import OVERLAP, write_overlap
from cotdistill.report.comparison import write_comparison
from cotdistill.runs.grid import expand
from cotdistill.tables.collect import collect
from cotdistill.tables.store import Tables


def make_overlap(test: dict[str, int | None], valid: dict[str, int | None]) -> Overlap:
    sizes = {"train": 720, "valid": 80, "test": 200}
    zero: dict[str, Any] = {"same": 0, "masked": 0, "body": 0, "near": 0, "grouped": None}
    pairs = [("valid", "train", {}), ("test", "train", test), ("test", "valid", valid)]
    shared = tuple(
        Shared(split, other, rows=sizes[split], **{**zero, **counts}) for split, other, counts in pairs
    )
    return Overlap(sizes, dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0), shared)


@pytest.fixture
def svamp_prepared(made: Callable[..., Any]) -> Any:
    """The made-up experiment, with what SVAMP's published splits share beside its prepared pair."""
    finished = made()
    overlap = make_overlap({"body": 113, "near": 153, "grouped": 168}, {"body": 19, "near": 9, "grouped": 4})
    for run in expand(finished):
        run.prepared.mkdir(parents=True, exist_ok=True)
        if run.dataset.name == "svamp":
            write_overlap(run.prepared, overlap, "sum-of-svamp")
        else:  # of other data than the runs saw
            write_overlap(run.prepared, overlap, "another")
    return finished


def test_counts_stand_in_the_table_where_the_data_are_the_runs_own(svamp_prepared: Any) -> None:
    collect(svamp_prepared)
    results = Tables(svamp_prepared).results
    svamp, cqa = (results[results["dataset"] == name] for name in ("svamp", "cqa"))
    assert set(svamp["test_near_in_train"]) == {153} and set(svamp["test_grouped_in_valid"]) == {4}
    assert set(svamp["ids_test"]) == {"ids-of-svamp-test"}
    columns = [f"test_{kind}_in_{other}" for kind in KINDS for other in ("train", "valid")]
    assert cqa[columns].isna().all(axis=None) and set(cqa["ids_train"]) == {"ids-of-cqa-train"}


def test_verdict_and_pages_say_what_accuracy_says_little_about(svamp_prepared: Any) -> None:
    collect(svamp_prepared)
    write_comparison(svamp_prepared)
    tables = svamp_prepared.folder / "tables"
    verdict = " ".join((tables / "verdict.md").read_text().split())
    assert (
        "- svamp: 200 test inputs, of which in train: 113 but for the last sentence, 153 nearly, 168 by "
        "group; accuracy says little about inputs unlike those of training."
    ) in verdict
    assert "of which in valid" not in verdict, "train has more of each kind"
    assert "cqa: 200 test inputs" not in verdict
    for name in ("comparison.md", "comparison.html", "comparison.tex"):
        text = (tables / name).read_text()
        assert "113 but for the last sentence" in text and "ids-of-svamp-test" in text, name


def test_without_the_file_nothing_is_claimed(svamp_prepared: Any) -> None:
    for path in svamp_prepared.folder.glob(f"prepared/*/*/{OVERLAP}"):
        path.unlink()
    collect(svamp_prepared)
    results = Tables(svamp_prepared).results
    assert results["test_same_in_train"].isna().all() and list_data_limits(results) == []
    assert [note.split(":")[0] for note in list_data_notes(results)] == ["splits of cqa", "splits of svamp"]


LIKE = "training had inputs much like them"
CHOSEN = "the tested checkpoint was chosen on inputs"


@pytest.mark.parametrize(("train", "valid", "said"), [
    ({}, {}, []), ({"near": 9}, {"near": 9}, []), ({"grouped": 9}, {"grouped": 9}, []),
    ({"same": 1, "masked": 1, "near": 1}, {}, [LIKE]),
    ({"near": 10}, {"near": 10}, [LIKE]),
    ({"grouped": 10}, {"near": None}, ["training had inputs of the same groups"]),
    ({"near": None, "grouped": 100}, {}, ["accuracy says little about groups that training does not have"]),
    ({"near": 100}, {"near": 11}, ["accuracy says little about inputs unlike those of training"]),
    ({"near": 10}, {"near": 11}, [LIKE, f"{CHOSEN} much like them"]),
    ({}, {"grouped": 10}, [f"{CHOSEN} of the same groups"]),
])  # fmt: skip
def test_what_is_told(train: dict[str, int | None], valid: dict[str, int | None], said: list[str]) -> None:
    row: dict[str, Any] = {"dataset": "mine", "status": "done", "n_test": 200}
    for shared in make_overlap(train, valid).shared[1:]:
        row |= {f"test_{kind}_in_{shared.other}": count for kind, count in shared.counts.items()}
    lines = list_data_limits(pd.DataFrame([row]).astype({key: "Int64" for key in row if "_in_" in key}))
    assert [line.split("; ")[-1] for line in lines] == [f"{each}." for each in said]

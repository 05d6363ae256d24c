"""Say what the test split of each dataset shares with those that students are trained and chosen on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cotdistill.data.overlap import KINDS
from cotdistill.data.overlap_report import TOLD, format_counts
from cotdistill.tables.columns import OVERLAP

MOSTLY = 0.5
"""share of the test inputs from which on accuracy says little about others"""
EXPLAINED = (
    "nearly: at least 4/5 of the distinct words of both are common to both, numbers as one word; by group: "
    "the data name the same premise, story or the like"
)


def list_data_limits(results: pd.DataFrame) -> list[str]:
    """Return a sentence for each dataset and split that share so much that accuracy on test says less.

    results: the table of results. Near duplicates and groups count from TOLD of the test inputs on, the same
    input and one with other numbers always.
    """
    return [
        f"{dataset}: {_describe(n_test, other, counts)}; {_conclude(other, part)}."
        for dataset, n_test, other, counts in _list_counts(results)
        if (part := _measure_part(counts, n_test)) is not None
    ]


def list_data_notes(results: pd.DataFrame) -> list[str]:
    """Return notes on the splits: the digests of their ids, and what test shares with the others."""
    notes = [
        f"splits of {row['dataset']}: digests of the ids in their order: train {row['ids_train']}, valid "
        f"{row['ids_valid']}, test {row['ids_test']}; the same on every machine that read the same splits."
        for row in _list_datasets(results)
        if pd.notna(row["ids_test"])
    ]
    shared = [
        f"{dataset}: {_describe(n_test, other, counts)}."
        for dataset, n_test, other, counts in _list_counts(results)
    ]
    return [*notes, *shared, *([f"{EXPLAINED}."] if shared else [])]


def _list_datasets(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the row of each dataset's first finished run."""
    done = results[results["status"] == "done"].drop_duplicates("dataset")
    return [{str(column): value for column, value in row.items()} for row in done.to_dict("records")]


def _list_counts(results: pd.DataFrame) -> Iterator[tuple[str, int, str, dict[str, int | None]]]:
    """Yield (dataset, test inputs, other split, counts by kind) where the counts are known."""
    for row in _list_datasets(results):
        for other in ("train", "valid"):
            found = {kind: row[OVERLAP[kind, other]] for kind in KINDS}
            counts = {kind: None if pd.isna(count) else int(count) for kind, count in found.items()}
            if counts["same"] is not None:
                yield row["dataset"], int(row["n_test"]), other, counts


def _describe(n_test: int, other: str, counts: dict[str, int | None]) -> str:
    return f"{n_test} test inputs, of which in {other}: {format_counts(counts)}"


def _measure_part(counts: dict[str, int | None], n_test: int) -> float | None:
    """Return the share of test inputs that have their like; None where it is too small to be told."""
    part = max(count or 0 for count in counts.values()) / n_test
    return part if part >= TOLD or counts["masked"] else None


def _conclude(other: str, part: float) -> str:
    if other == "valid":
        return "the tested checkpoint was chosen on inputs much like them"
    if part >= MOSTLY:
        return "accuracy says little about inputs unlike those of training"
    return "accuracy is in part on inputs much like those of training"

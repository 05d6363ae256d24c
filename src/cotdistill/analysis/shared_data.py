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
    input and one with other numbers always. Of valid nothing is said where train has as many of each kind.
    """
    lines = []
    in_train: dict[str, dict[str, int | None]] = {}
    for dataset, n_test, other, counts in _list_counts(results):
        if other == "train":
            in_train[dataset] = counts
        elif all((count or 0) <= (in_train[dataset][kind] or 0) for kind, count in counts.items()):
            continue
        if conclusion := _conclude(other, counts, n_test):
            lines.append(f"{dataset}: {_describe(n_test, other, counts)}; {conclusion}.")
    return lines


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


def _conclude(other: str, counts: dict[str, int | None], n_test: int) -> str:
    """Return what follows of the counts for accuracy on test; an empty string where they are too small."""
    alike = max((counts[kind] or 0) / n_test for kind in ("body", "near"))
    grouped = (counts["grouped"] or 0) / n_test
    if max(alike, grouped) < TOLD and not counts["masked"]:
        return ""
    like = "inputs much like them" if alike >= TOLD or counts["masked"] else "inputs of the same groups"
    if other == "valid":
        return f"the tested checkpoint was chosen on {like}"
    if alike >= MOSTLY:
        return "accuracy says little about inputs unlike those of training"
    if grouped >= MOSTLY:
        return "accuracy says little about groups that training does not have"
    return f"training had {like}"

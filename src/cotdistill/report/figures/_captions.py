"""Sentences that captions share."""

from __future__ import annotations

import pandas as pd

from cotdistill.analysis.intervals import LEAST_SEEDS
from cotdistill.analysis.words import describe_test, join_names
from cotdistill.tables.columns import CELL

NO_INTERVAL = f"fewer than {LEAST_SEEDS} seeds, or seeds that are all equal, have no interval"


def describe_seeds(counts: list[int]) -> str:
    """Return in words how many seeds the cells of a figure have."""
    low, high = min(counts, default=0), max(counts, default=0)
    if low == high:
        return f"n = {low} seed{'' if low == 1 else 's'}"
    return f"n = {low} to {high} seeds"


def count_seeds(table: pd.DataFrame) -> list[int]:
    """Return the number of finished seeds of each cell of the grid that `table` has a row of."""
    done = table["run"].where(table["status"] == "done") if "status" in table else table["run"]
    return list(table.assign(done=done).groupby(CELL)["done"].nunique())


def describe_groups(results: pd.DataFrame) -> str:
    """Return a sentence on the groups of each dataset's test examples; empty where none shares a text."""
    done = results[(results["status"] == "done") & (results["n_groups"] < results["n_test"])]
    sizes = done.drop_duplicates("dataset")[["dataset", "n_test", "n_groups"]].itertuples(index=False)
    found = [f"{name} {describe_test(int(n), int(groups))}" for name, n, groups in sizes]
    return f" Examples that share a text are resampled as one: {join_names(found)}." if found else ""


def describe_missing(results: pd.DataFrame) -> str:
    """Return a sentence on the runs of the grid that are not in a figure; empty where none is missing."""
    missing = int((results["status"] != "done").sum())
    return f" Runs missing: {missing}." if missing else ""

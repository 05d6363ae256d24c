"""Sentences that captions share."""

from __future__ import annotations

import pandas as pd

from cotdistill.analysis.intervals import LEAST_SEEDS
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


def describe_missing(results: pd.DataFrame) -> str:
    """Return a sentence on the runs of the grid that are not in a figure; empty where none is missing."""
    missing = int((results["status"] != "done").sum())
    return f" Runs missing: {missing}." if missing else ""

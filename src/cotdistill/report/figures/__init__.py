"""Figures: one file per figure, each a pure function of the experiment's tables.

A figure is a module of this folder with

    draw(tables, experiment) -> matplotlib Figure
    caption(tables, experiment) -> str, one paragraph: what is shown, n, what the interval is

A figure of what a grid does not have is a sentence that says so. Adding a figure is adding a file, and
its caption in `workflow/report`. What figures share stands in `cotdistill.report.figures._style` (how they look)
and `cotdistill.report.figures._parts` (what they are made of).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cotdistill.common.errors import UserError
from cotdistill.common.files import write_text
from cotdistill.common.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

    from cotdistill.config.models import Experiment

FIGURES = Registry(__name__, "figure")


def draw_all(experiment: Experiment) -> list[Path]:
    """Draw every figure to `<results>/<experiment>/figures/<name>.{png,pdf}`, its caption to `.txt`.

    Returns the paths written. Raises UserError when the tables are absent or hold no finished run.
    """
    from cotdistill.report.figures._style import save, style
    from cotdistill.tables.store import Tables, files_of

    tables, files = Tables(experiment), files_of(experiment)
    if not (tables.results["status"] == "done").any():
        raise UserError(f"{files.results}: no finished run in the table; nothing to draw")
    written = []
    for name in FIGURES.names():
        module = FIGURES.module(name)
        target = files.results.parent / "figures" / name
        with style():
            written += save(module.draw(tables, experiment), target)
        text = target.with_suffix(".txt")
        write_text(text, module.caption(tables, experiment) + "\n")
        written.append(text)
    return written


def seeds_text(counts: list[int]) -> str:
    """How many seeds the cells of a figure have, for captions."""
    low, high = min(counts, default=0), max(counts, default=0)
    if low == high:
        return f"n = {low} seed{'' if low == 1 else 's'}"
    return f"n = {low} to {high} seeds"


def seeds_of_cells(table: pd.DataFrame) -> list[int]:
    """The finished seeds of each cell (a block's method) that `table` has a row of, for `seeds_text`."""
    from cotdistill.analysis.comparison import CELL

    done = table["run"].where(table["status"] == "done") if "status" in table else table["run"]
    return list(table.assign(done=done).groupby(CELL)["done"].nunique())


def missing_text(results: pd.DataFrame) -> str:
    """A sentence on the runs of the grid that are not in a figure; empty where none is missing."""
    missing = int((results["status"] != "done").sum())
    return f" Runs missing: {missing}." if missing else ""

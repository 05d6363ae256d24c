"""Figures: one file per figure, each a pure function of the tables of results and histories.

A figure is a module of this folder with

    draw(results, history, experiment) -> matplotlib Figure
    caption(results, history, experiment) -> str, one paragraph: what is shown, n, what the interval is

Adding a figure is adding a file. What figures share stands in `cotdistill.figure_style`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cotdistill.errors import UserError
from cotdistill.files import write_text
from cotdistill.registry import Registry

if TYPE_CHECKING:
    from cotdistill.config.models import Experiment

FIGURES = Registry(__name__, "figure")


def draw_all(experiment: Experiment) -> list[Path]:
    """Draw every figure to `<results>/<experiment>/figures/<name>.{png,pdf}`, its caption to `.txt`.

    Reads `results.parquet` and `history.parquet`; returns the paths written. Raises UserError when
    the tables are absent or hold no finished run.
    """
    from cotdistill.figure_style import save, style
    from cotdistill.results.collect import read_history, read_results, tables_of

    results, history = read_results(experiment), read_history(experiment)
    tables = tables_of(experiment)
    if not (results["status"] == "done").any():
        raise UserError(f"{tables.results}: no finished run in the table; nothing to draw")
    written = []
    for name in FIGURES.names():
        module = FIGURES.module(name)
        target = tables.results.parent / "figures" / name
        with style():
            written += save(module.draw(results, history, experiment), target)
        text = target.with_suffix(".txt")
        write_text(text, module.caption(results, history, experiment) + "\n")
        written.append(text)
    return written


def seeds_text(counts: list[int]) -> str:
    """How many seeds the cells of a figure have, for captions."""
    low, high = min(counts, default=0), max(counts, default=0)
    if low == high:
        return f"n = {low} seed{'' if low == 1 else 's'}"
    return f"n = {low} to {high} seeds"

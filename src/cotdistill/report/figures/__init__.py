"""Draw the figures: one file per figure, each a pure function of the experiment's tables.

A figure is a module of this folder with

    draw(tables, experiment) -> matplotlib Figure
    caption(tables, experiment) -> str, one paragraph: what is shown, n, what the interval is

where tables is an AnalysedTables. A figure of what a grid does not have is a sentence that says so. Adding a
figure is adding a file, and its caption in `workflow/report`. What figures share is in `_style` (how they
look), `_parts` (what they are made of) and `_captions` (sentences).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cotdistill.common.errors import UserError
from cotdistill.common.files import write_text
from cotdistill.common.registry import Registry

if TYPE_CHECKING:
    from cotdistill.config.models import Experiment

FIGURES = Registry(__name__, "figure")


def draw_all(experiment: Experiment) -> list[Path]:
    """Draw every figure to `<results>/<experiment>/figures/<name>.{png,pdf}`, its caption to `.txt`.

    Returns the paths written. Raises UserError when the tables are absent or hold no finished run.
    """
    from cotdistill.analysis.tables import AnalysedTables
    from cotdistill.report.figures._style import save_figure, use_style
    from cotdistill.tables.store import find_table_files

    tables, files = AnalysedTables(experiment), find_table_files(experiment)
    if not (tables.results["status"] == "done").any():
        raise UserError(f"{files.results}: no finished run in the table; nothing to draw")
    written = []
    for name in FIGURES.names():
        module = FIGURES.module(name)
        target = experiment.folder / "figures" / name
        with use_style():
            written += save_figure(module.draw(tables, experiment), target)
        text = target.with_suffix(".txt")
        write_text(text, module.caption(tables, experiment) + "\n")
        written.append(text)
    return written

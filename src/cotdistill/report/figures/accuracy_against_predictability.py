"""Test accuracy against the excess predictability of the same run: does more come with better?"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import describe_missing
from cotdistill.report.figures._parts import (
    draw_headline,
    draw_method_legend,
    draw_remark,
    make_facets,
    make_message,
)
from cotdistill.report.figures._predictability import (
    PREFIX,
    SPACES,
    explain_absence,
    explain_numbers,
    list_spaces,
)
from cotdistill.report.figures._style import MethodStyle, choose_styles, describe_constants, list_panels

LEAST = 5
"""fewest runs that a rank correlation is stated of"""


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one row per dataset, student, labels and fraction; one column per representation."""
    rows = _select_runs(tables)
    spaces = list_spaces(rows["measure"])
    if not spaces:
        return make_message(explain_absence(experiment))
    cells, styles = list_panels(experiment), choose_styles(experiment)
    figure, grid = make_facets(cells, [SPACES[space].replace(", ", "\n") for space in spaces], 2.3)
    for panel, axes in zip(cells, grid, strict=True):
        inside = panel.of(rows)
        for space, ax in zip(spaces, axes, strict=True):
            _draw_points(ax, inside[inside["measure"] == f"{PREFIX}{space}/excess"], styles)
            ax.set_xlabel("excess predictability (points)")
            ax.set_ylabel("test accuracy (%)")
    draw_headline(figure, f"Accuracy against predictability: {describe_constants(experiment)}")
    seen = {name: look for name, look in styles.items() if name in set(rows["method"])}
    draw_method_legend(figure, seen, "a point: one seed's run", lines=False)
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n, and how to read each estimator."""
    rows = _select_runs(tables)
    if rows.empty:
        return explain_absence(experiment)
    return (
        "Test accuracy against the excess predictability of the label task's states from the rationale "
        "task's, on test, at the checkpoint chosen on validation in "
        f"{experiment.experiment}: a point a run, n = {rows['run'].nunique()} runs. Spearman's rank "
        f"correlation over a panel's runs stands in it where there are at least {LEAST}; it mixes methods "
        "and seeds, so it is a description, "
        f"not a test, and no interval is given. {explain_numbers(list_spaces(rows['measure']))}"
        f"{describe_missing(tables.results)}"
    )


def _select_runs(tables: AnalysedTables) -> pd.DataFrame:
    """Return the excess of each run and representation, with the run's accuracy."""
    measures = tables.measures
    finals = measures[measures["measure"].isin([f"{PREFIX}{space}/excess" for space in SPACES])]
    return finals.merge(tables.results[["run", "accuracy"]], on="run")


def _draw_points(ax: Axes, rows: pd.DataFrame, styles: dict[str, MethodStyle]) -> None:
    if rows.empty:
        draw_remark(ax, "not measured")
        return
    for name, look in styles.items():
        own = rows[rows["method"] == name]
        points = 100 * own["value"], 100 * own["accuracy"]
        ax.plot(*points, look.marker, mfc="none", mec=look.color, ms=6, mew=1.2)
    rho = rows["value"].corr(rows["accuracy"], method="spearman") if len(rows) >= LEAST else math.nan
    # numbers that are all the same have no rank correlation
    text = f"n = {len(rows)} runs" if math.isnan(rho) else f"Spearman {rho:+.2f}, n = {len(rows)} runs"
    ax.margins(x=0.08, y=0.08)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.16 * (high - low))  # room for the words
    ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=8.5)

"""Test accuracy against the estimated mutual information of the same run: does more come with better?"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import describe_missing
from cotdistill.report.figures._estimates import (
    explain_absence,
    explain_estimators,
    list_estimates,
    title_column,
)
from cotdistill.report.figures._parts import (
    draw_headline,
    draw_method_legend,
    draw_remark,
    make_facets,
    make_message,
)
from cotdistill.report.figures._style import MethodStyle, choose_styles, describe_constants, list_panels

LEAST = 5
"""fewest runs that a rank correlation is stated of"""


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one row per dataset, student, labels and fraction; one column per representation and estimator."""
    rows = _select_runs(tables)
    columns = list_estimates(rows["measure"])
    if not columns:
        return make_message(explain_absence(experiment))
    cells, styles = list_panels(experiment), choose_styles(experiment)
    figure, grid = make_facets(cells, [title_column(*column) for column in columns], 2.3)
    for panel, axes in zip(cells, grid, strict=True):
        inside = panel.of(rows)
        for (space, estimator), ax in zip(columns, axes, strict=True):
            _draw_points(ax, inside[inside["measure"] == f"mi/{space}/{estimator}/value"], styles)
            ax.set_xlabel("estimate on test (nats)")
            ax.set_ylabel("test accuracy (%)")
    draw_headline(figure, f"Accuracy against mutual information: {describe_constants(experiment)}")
    seen = {name: look for name, look in styles.items() if name in set(rows["method"])}
    draw_method_legend(figure, seen, "a point: one seed's run", lines=False)
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n, and how to read each estimator."""
    rows = _select_runs(tables)
    if rows.empty:
        return explain_absence(experiment)
    explained = explain_estimators(name for _, name in list_estimates(rows["measure"]))
    return (
        "Test accuracy against the estimated mutual information between the label task's and the rationale "
        "task's representations, in nats, of the checkpoint chosen on validation in "
        f"{experiment.experiment}: a point a run, n = {rows['run'].nunique()} runs. Spearman's rank "
        f"correlation over a panel's runs stands in it where there are at least {LEAST}; it mixes methods "
        "and seeds, so it is a description, "
        f"not a test, and no interval is given. {explained} "
        "Estimates depend on the number of examples: these, on test, are not on the scale of those on "
        "validation during training."
        f"{describe_missing(tables.results)}"
    )


def _select_runs(tables: AnalysedTables) -> pd.DataFrame:
    """Return the final estimates, each with the accuracy of its run."""
    measures = tables.measures
    finals = measures[measures["measure"].str.fullmatch(r"mi/[^/]+/[^/]+/value")]
    return finals.merge(tables.results[["run", "accuracy"]], on="run")


def _draw_points(ax: Axes, rows: pd.DataFrame, styles: dict[str, MethodStyle]) -> None:
    if rows.empty:
        draw_remark(ax, "not measured")
        return
    for name, look in styles.items():
        own = rows[rows["method"] == name]
        ax.plot(own["value"], 100 * own["accuracy"], look.marker, mfc="none", mec=look.color, ms=6, mew=1.2)
    rho = rows["value"].corr(rows["accuracy"], method="spearman") if len(rows) >= LEAST else math.nan
    # numbers that are all the same have no rank correlation
    text = f"n = {len(rows)} runs" if math.isnan(rho) else f"Spearman {rho:+.2f}, n = {len(rows)} runs"
    ax.margins(x=0.08, y=0.08)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.16 * (high - low))  # room for the words
    ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=8.5)

"""The estimated mutual information of the two tasks' representations over training, by method."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import count_seeds, describe_seeds
from cotdistill.report.figures._estimates import (
    explain_absence,
    explain_estimators,
    list_estimates,
    title_column,
)
from cotdistill.report.figures._parts import (
    draw_curves,
    draw_headline,
    draw_method_legend,
    draw_remark,
    make_facets,
    make_message,
)
from cotdistill.report.figures._style import choose_styles, describe_constants, list_panels


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one row per dataset, student, labels and fraction; one column per representation and estimator."""
    history = _select_estimates(tables)
    columns = list_estimates(history["metric"])
    if not columns:
        return make_message(explain_absence(experiment))
    cells, styles = list_panels(experiment), choose_styles(experiment)
    figure, grid = make_facets(cells, [title_column(*column) for column in columns], 2.2)
    for panel, axes in zip(cells, grid, strict=True):
        rows = panel.of(history)
        for (space, estimator), ax in zip(columns, axes, strict=True):
            if not draw_curves(ax, rows[rows["metric"] == f"mi/{space}/{estimator}"], styles):
                draw_remark(ax, "not measured")
            ax.set_xlabel("optimiser step")
            ax.set_ylabel("estimate (nats)")
    draw_headline(
        figure, f"Mutual information of the two tasks over training: {describe_constants(experiment)}"
    )
    seen = {name: look for name, look in styles.items() if name in set(history["method"])}
    seeds = describe_seeds(count_seeds(history))
    draw_method_legend(figure, seen, f"thin lines: seeds ({seeds} a method); thick lines: their mean")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n, and how to read each estimator."""
    history = _select_estimates(tables)
    if history.empty:
        return explain_absence(experiment)
    explained = explain_estimators(estimator for _, estimator in list_estimates(history["metric"]))
    return (
        "Estimated mutual information between the representations of the label task and of the rationale "
        f"task in {experiment.experiment}, in nats, on held-out validation data, over optimiser steps. Thin "
        f"lines are seeds; the thick line with markers is their mean ({describe_seeds(count_seeds(history))} "
        "a method), without an interval. Methods without a rationale task have no estimate. "
        f"{explained} Compare methods within one "
        "column only: two estimators are not on one scale."
    )


def _select_estimates(tables: AnalysedTables) -> pd.DataFrame:
    history = tables.history
    return history[history["metric"].str.startswith("mi/") & history["value"].notna()]

"""Learning curves: loss terms, validation accuracy and predictability over the steps of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.evaluation.predictability import REPRESENTATIONS
from cotdistill.report.figures._captions import count_seeds, describe_seeds
from cotdistill.report.figures._parts import (
    draw_curves,
    draw_headline,
    draw_method_legend,
    draw_remark,
    make_facets,
)
from cotdistill.report.figures._predictability import OVER_TRAINING, explain_numbers, list_spaces
from cotdistill.report.figures._style import choose_styles, describe_constants, list_panels


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one row per dataset, student, labels and fraction; a column per curve.

    The columns are the loss terms, then accuracy, then excess predictability where it was measured.
    """
    history = tables.history
    metrics, cells, styles = _list_metrics(history), list_panels(experiment), choose_styles(experiment)
    figure, grid = make_facets(cells, [_name_metric(metric) for metric in metrics], 2.2)
    for panel, axes in zip(cells, grid, strict=True):
        rows = panel.of(history)
        for metric, ax in zip(metrics, axes, strict=True):
            percent = not metric.startswith("loss/")
            if not draw_curves(ax, rows[rows["metric"] == metric], styles, scale=100 if percent else 1):
                draw_remark(ax, "nothing logged")
            ax.set_xlabel("optimiser step")
            ax.set_ylabel(_name_unit(metric))
    draw_headline(figure, f"Learning curves: {describe_constants(experiment)}")
    seeds = describe_seeds(count_seeds(history))
    draw_method_legend(figure, styles, f"thin lines: seeds ({seeds} a method); thick lines: their mean")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n and what the lines are."""
    return (
        f"Learning curves of {experiment.experiment}: every loss term on training batches (nats) and "
        "accuracy on the validation split, over optimiser steps. Thin lines are seeds; the thick line with "
        f"markers is their mean ({describe_seeds(count_seeds(tables.history))} a method) at the steps that "
        "all of them logged, without an interval. A method has a line only for the terms it "
        f"minimises or logs. {_explain_predictability(tables.history, experiment)}"
        "The total loss is the weighted sum of a method's own terms, and the "
        "mutual-information terms of two methods or variants are different quantities: neither is on one "
        "scale across methods."
    )


def _list_metrics(history: pd.DataFrame) -> list[str]:
    """Return the loss terms in the order of the log, then validation accuracy."""
    found = list(dict.fromkeys(history["metric"]))
    losses = [metric for metric in found if metric.startswith("loss/")]
    losses.sort(key=lambda metric: metric != "loss/total")
    excess = [f"{OVER_TRAINING}{space}/excess" for space in _list_measured(history)]
    return [*losses, "valid/accuracy", *excess]


def _list_measured(history: pd.DataFrame) -> list[str]:
    return list_spaces(history["metric"][history["value"].notna()], OVER_TRAINING)


def _explain_predictability(history: pd.DataFrame, experiment: Experiment) -> str:
    """Return a sentence on the panels of predictability, or on why there are none."""
    if spaces := _list_measured(history):
        n = experiment.evaluation.predictability
        return f"Excess predictability is of {n} validation examples. {explain_numbers(spaces)} "
    return (
        "Predictability over training is not shown: it takes a method with a label and a rationale task, and "
        "as many validation examples with a rationale as evaluation.predictability says. "
    )


def _name_unit(metric: str) -> str:
    if metric == "valid/accuracy":
        return "accuracy (%)"
    return "points above the controls" if metric.startswith(OVER_TRAINING) else "loss (nats)"


def _name_metric(metric: str) -> str:
    if metric == "valid/accuracy":
        return "validation accuracy"
    if metric.startswith(OVER_TRAINING):
        return f"excess predictability,\n{REPRESENTATIONS[metric.split('/')[2]]}"
    return f"{metric.removeprefix('loss/').replace('_', ' ')} loss"

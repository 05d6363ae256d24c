"""Learning curves: every loss term and the validation accuracy over the steps of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import count_seeds, describe_seeds
from cotdistill.report.figures._parts import (
    draw_curves,
    draw_headline,
    draw_method_legend,
    draw_remark,
    make_facets,
)
from cotdistill.report.figures._style import choose_styles, describe_constants, list_panels


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one row per dataset, student, labels and fraction; one column per loss term, then accuracy."""
    history = tables.history
    metrics, cells, styles = _list_metrics(history), list_panels(experiment), choose_styles(experiment)
    figure, grid = make_facets(cells, [_name_metric(metric) for metric in metrics], 2.2)
    for panel, axes in zip(cells, grid, strict=True):
        rows = panel.of(history)
        for metric, ax in zip(metrics, axes, strict=True):
            percent = metric == "valid/accuracy"
            if not draw_curves(ax, rows[rows["metric"] == metric], styles, scale=100 if percent else 1):
                draw_remark(ax, "nothing logged")
            ax.set_xlabel("optimiser step")
            ax.set_ylabel("accuracy (%)" if percent else "loss (nats)")
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
        "minimises or logs. The total loss is the weighted sum of a method's own terms, and the "
        "mutual-information terms of two methods or variants are different quantities: neither is on one "
        "scale across methods."
    )


def _list_metrics(history: pd.DataFrame) -> list[str]:
    """Return the loss terms in the order of the log, then validation accuracy."""
    found = list(dict.fromkeys(history["metric"]))
    losses = [metric for metric in found if metric.startswith("loss/")]
    losses.sort(key=lambda metric: metric != "loss/total")
    return [*losses, "valid/accuracy"]


def _name_metric(metric: str) -> str:
    if metric == "valid/accuracy":
        return "validation accuracy"
    return f"{metric.removeprefix('loss/').replace('_', ' ')} loss"

"""Learning curves: every loss term and the validation accuracy over the steps of training."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cotdistill.config.models import Experiment
from cotdistill.figure_style import MethodStyle, constants, headline, method_styles, panels
from cotdistill.figures import seeds_text


def draw(results: pd.DataFrame, history: pd.DataFrame, experiment: Experiment) -> Figure:
    """One row per dataset, student, labels and fraction; one column per loss term, then accuracy."""
    metrics, cells, styles = _metrics(history), panels(experiment), method_styles(experiment)
    extra = 0.14 * max(panel.title.count("\n") for panel in cells)
    size = (max(2.7 * len(metrics) + 0.6, 5.0), (2.2 + extra) * len(cells) + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(cells), len(metrics), squeeze=False)
    for panel, axes in zip(cells, grid, strict=True):
        rows = panel.of(history)
        for metric, ax in zip(metrics, axes, strict=True):
            _curves(ax, rows[rows["metric"] == metric], metric, styles)
            ax.set_title(f"{_name(metric)}\n{panel.title}", loc="left")
            ax.set_xlabel("optimiser step")
            ax.set_ylabel("accuracy (%)" if metric == "valid/accuracy" else "loss (nats)")
    headline(figure, f"Learning curves: {constants(experiment)}")
    seeds = seeds_text(_counts(history))
    _legend(figure, styles, f"thin lines: seeds ({seeds} a method); thick lines: their mean")
    return figure


def caption(results: pd.DataFrame, history: pd.DataFrame, experiment: Experiment) -> str:
    """What the figure shows, n and what the lines are."""
    return (
        f"Learning curves of {experiment.experiment}: every loss term on training batches (nats) and "
        "accuracy on the validation split, over optimiser steps. Thin lines are seeds; the thick line with "
        f"markers is their mean ({seeds_text(_counts(history))} a method) at the steps that all of them "
        "logged, without an interval. A method has a line only for the terms it minimises or logs. The "
        "total loss is the weighted sum of a method's own terms, so totals of two methods are not on one "
        "scale."
    )


def _counts(history: pd.DataFrame) -> list[int]:
    """Seeds of each cell."""
    return list(history.groupby(["dataset", "student", "method", "labels", "fraction"])["run"].nunique())


def _metrics(history: pd.DataFrame) -> list[str]:
    """The loss terms in the order of the log, then validation accuracy."""
    found = list(dict.fromkeys(history["metric"]))
    losses = [metric for metric in found if metric.startswith("loss/")]
    losses.sort(key=lambda metric: metric != "loss/total")
    return [*losses, "valid/accuracy"]


def _name(metric: str) -> str:
    if metric == "valid/accuracy":
        return "validation accuracy"
    return f"{metric.removeprefix('loss/').replace('_', ' ')} loss"


def _curves(ax: Axes, rows: pd.DataFrame, metric: str, styles: dict[str, MethodStyle]) -> None:
    scale = 100 if metric == "valid/accuracy" else 1
    for number, (method, look) in enumerate(styles.items()):
        values = rows[rows["method"] == method].pivot(index="step", columns="seed", values="value") * scale
        if values.empty:
            continue
        if values.shape[1] > 1:
            ax.plot(values.index, values, color=look.color, lw=0.5, alpha=0.4)
        # a mean over fewer seeds at later steps would jump where one stopped early
        mean = values.dropna().mean(axis=1)
        # some six markers a line, staggered by method so that lines on one another can be told apart
        every = max(len(mean) // 6, 1)
        start = number * every // max(len(styles), 1)
        ax.plot(mean.index, mean, **_line(look), markevery=(start, every))
    if not ax.lines:
        ax.text(0.5, 0.5, "nothing logged", transform=ax.transAxes, ha="center", va="center", color="#555555")


def _line(look: MethodStyle) -> dict[str, Any]:
    return {"color": look.color, "ls": look.line, "lw": 1.6, "marker": look.marker, "ms": 4.5}


def _legend(figure: Figure, styles: dict[str, MethodStyle], title: str) -> None:
    handles = [Line2D([], [], **_line(look), label=name) for name, look in styles.items()]
    # as many columns as fit the width: some 0.075 inches a character and 0.6 for the line
    widest = 0.6 + 0.075 * max(len(name) for name in styles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / widest)))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=title)
    legend.set_frame_on(False)

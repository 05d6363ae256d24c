"""Test accuracy against the fraction of the training data, by method."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.analysis.comparison import select_by_seed
from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import count_seeds, describe_missing, describe_seeds
from cotdistill.report.figures._parts import (
    draw_headline,
    draw_means,
    draw_method_legend,
    make_message,
    make_panels,
)
from cotdistill.report.figures._style import choose_styles, describe_constants, list_panels
from cotdistill.runs.grid import expand


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one panel per dataset, student and labels; one line per method."""
    fractions = sorted({run.fraction for run in expand(experiment)})
    if len(fractions) < 2:
        return make_message(_explain_absence(experiment, fractions[0]))
    cells, styles = list_panels(experiment, along="fraction"), choose_styles(experiment)
    places = [math.log2(fraction) for fraction in fractions]
    figure, axes = make_panels(cells, 2.7, 0.6)
    for panel, ax in zip(cells, axes, strict=True):
        rows = panel.of(tables.results)
        draw_means(ax, places, select_values(rows, "fraction", fractions, list(styles)), styles)
        ax.set_xticks(places, [_label_tick(rows, fraction) for fraction in fractions])
        ax.set_xlabel("training data (fraction, examples)")
        ax.set_ylabel("test accuracy (%)")
    draw_headline(figure, f"Data efficiency: {describe_constants(experiment, along='fraction')}")
    seeds = describe_seeds(count_seeds(tables.results))
    draw_method_legend(figure, styles, f"mean over seeds ({seeds}), bars: 95% t interval")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n and the interval."""
    fractions = sorted({run.fraction for run in expand(experiment)})
    if len(fractions) < 2:
        return _explain_absence(experiment, fractions[0])
    return (
        f"Test accuracy of {experiment.experiment} against the fraction of the training data, on a "
        "logarithmic scale, with the number of training examples below it. Points are means over seeds "
        f"({describe_seeds(count_seeds(tables.results))} each), bars their 95% Student t intervals, which "
        "cover the variation between seeds and of the subset drawn; one seed has no interval. Within a seed "
        "a smaller subset is part of every larger one, and all methods get the same. Methods stand a little "
        f"apart so that their bars can be told from one another.{describe_missing(tables.results)}"
    )


def select_values(
    rows: pd.DataFrame, axis: str, levels: list[Any], names: list[str]
) -> dict[str, list[list[float]]]:
    """Return the accuracies in percent of the finished seeds, by method and level of an axis of the grid.

    rows: of the table of results, of one panel.
    """
    found = {}
    for name in names:
        own = rows[rows["method"] == name]
        cells = [select_by_seed(own[own[axis] == level]) for level in levels]
        found[name] = [[100 * value for value in cell.values()] for cell in cells]
    return found


def _label_tick(rows: pd.DataFrame, fraction: float) -> str:
    """Return a fraction with its number of training examples, where all runs of the panel have the same."""
    sizes = rows["n_train"][rows["fraction"] == fraction].dropna().unique()
    counts = f"{min(sizes):,}" if len(set(sizes)) == 1 else ""
    return f"{100 * fraction:.4g}%\n{counts}"


def _explain_absence(experiment: Experiment, fraction: float) -> str:
    return (
        f"All runs of {experiment.experiment} train on {100 * fraction:.4g}% of the data: there is no curve "
        "against the size of the training set. List several 'fractions' in the config to get one."
    )

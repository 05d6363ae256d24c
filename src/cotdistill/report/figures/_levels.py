"""Accuracy over the levels of one axis of the grid, such as students, with a line a method."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cotdistill.analysis.comparison import select_by_seed
from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import count_seeds, describe_seeds
from cotdistill.report.figures._parts import draw_means, draw_method_legend, make_panels
from cotdistill.report.figures._style import choose_styles, list_panels


def draw_levels(
    tables: AnalysedTables, experiment: Experiment, axis: str, levels: list[Any], places: list[float]
) -> tuple[Figure, list[tuple[pd.DataFrame, Axes]]]:
    """Return a figure with a panel for each combination of the other axes, and what each panel shows.

    axis: 'student' or 'fraction'; its `levels` stand at `places` along x, whose ticks are for the caller to
    set. What a panel shows is its rows of the table of results, and its axes.
    """
    cells, styles = list_panels(experiment, along=axis), choose_styles(experiment)
    figure, axes = make_panels(cells, 2.7, 0.6)
    panels = [(panel.of(tables.results), ax) for panel, ax in zip(cells, axes, strict=True)]
    for rows, ax in panels:
        draw_means(ax, places, select_values(rows, axis, levels, list(styles)), styles)
        ax.set_ylabel("test accuracy (%)")
    seeds = describe_seeds(count_seeds(tables.results))
    draw_method_legend(figure, styles, f"mean over seeds ({seeds}), bars: 95% t interval")
    return figure, panels


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

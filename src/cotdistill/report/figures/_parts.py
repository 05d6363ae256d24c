"""The parts that figures are made of: grids of panels, rows of methods, curves, points, legends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cotdistill.analysis.intervals import Interval, measure_interval
from cotdistill.report.figures._style import GREY, MethodStyle, Panel, wrap_text

PANEL_WIDTH = 3.3
"""inches of one panel, without the labels on its left"""


def draw_headline(figure: Figure, text: str) -> None:
    """Draw the title of the whole figure, wrapped to its width."""
    figure.suptitle(wrap_text(text, int(figure.get_figwidth() * 14)), fontsize=10)


def make_message(text: str) -> Figure:
    """Return a small figure of words, for what there is nothing to draw of."""
    lines = wrap_text(text, 64)
    figure = Figure(figsize=(5.5, 0.9 + 0.18 * lines.count("\n")))
    figure.text(0.5, 0.5, lines, ha="center", va="center", color="#333333")
    return figure


def draw_remark(ax: Axes, text: str) -> None:
    """Draw words in place of curves, in an axes that has nothing to show."""
    behind = {"fc": "white", "ec": "none", "pad": 2}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY, bbox=behind)
    ax.set(xticks=[], yticks=[])


def make_panels(cells: list[Panel], height: float, left: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with one axes a panel: a column a dataset where there are 2 to 4, else three a row.

    height: inches of one panel. left: inches of the labels left of the first column.
    """
    datasets = list(dict.fromkeys(panel.dataset for panel in cells))
    combinations = list(dict.fromkeys(panel.others for panel in cells))
    if 1 < len(datasets) <= 4:
        columns, rows = len(datasets), len(combinations)
        # a cell that the grid leaves out stays blank, so that columns stay datasets
        places = [combinations.index(p.others) * columns + datasets.index(p.dataset) for p in cells]
    else:
        columns = min(3, len(cells))
        rows = -(-len(cells) // columns)
        places = list(range(len(cells)))
    width = max(columns * PANEL_WIDTH + left, 5.5)
    figure = Figure(figsize=(width, rows * (height + _measure_title(cells)) + 1.1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, ax in enumerate(axes):
        if place not in places:
            ax.set_axis_off()
    chosen = [axes[place] for place in places]
    for panel, ax in zip(cells, chosen, strict=True):
        ax.set_title(panel.title, loc="left")
    return figure, chosen


def make_facets(
    cells: list[Panel], titles: list[str], height: float, width: float = 2.7, left: float = 0.6
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with one row a panel and one column a title. height, width: inches of an axes."""
    lines = max(title.count("\n") for title in titles)
    size = (
        max(width * len(titles) + left, 5.5),
        (height + _measure_title(cells) + 0.14 * lines) * len(cells) + 1.2,
    )
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(cells), len(titles), squeeze=False)
    for panel, axes in zip(cells, grid, strict=True):
        for title, ax in zip(titles, axes, strict=True):
            ax.set_title(f"{title}\n{panel.title}", loc="left")
    return figure, [list(axes) for axes in grid]


def _measure_title(cells: list[Panel]) -> float:
    return 0.14 * max(panel.title.count("\n") for panel in cells)


def measure_labels(names: list[str], width: int = 28) -> float:
    """Return the inches that the longest of `names` needs beside an axis, wrapped at `width` characters."""
    return 0.3 + 0.075 * max(len(line) for name in names for line in wrap_text(name, width).split("\n"))


def label_method_rows(ax: Axes, names: list[str], counts: list[int]) -> None:
    """Turn the y axis into one row a method, first on top, with its n on the right."""
    places = list(range(len(names)))
    spec = ax.get_subplotspec()
    first = spec is None or spec.is_first_col()
    ax.set_yticks(places, [wrap_text(name, 28) if first else "" for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    right = ax.secondary_yaxis("right")
    right.set_yticks(places, [f"n={count}" for count in counts], fontsize=8)
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)


def draw_seeds(
    ax: Axes,
    cells: list[list[float]],
    styles: Sequence[MethodStyle],
    low: float,
    high: float,
    intervals: Sequence[Interval] | None = None,
) -> list[int]:
    """Draw one row a method: every seed as a hollow point, below it the mean with its 95% interval.

    cells: of each method one number a seed, in the unit of the x axis. low, high: the least and the most
    that the quantity can be. intervals: Student's t over seeds unless given; one with NaN for bounds has no
    bar. Returns the number of seeds of each.
    """
    if intervals is None:
        intervals = [measure_interval(values, low, high) for values in cells]
    for row, (values, interval, look) in enumerate(zip(cells, intervals, styles, strict=True)):
        _draw_row(ax, row, values, interval, look)
    if found := [value for values in cells for value in values]:
        ax.set_xlim(_choose_limits(found, list(intervals), low, high))
        ax.xaxis.set_major_locator(_Possible(low, high))
    else:
        draw_remark(ax, "nothing finished to show")
    return [interval.n for interval in intervals]


class _Possible(MaxNLocator):
    """Ticks at short numbers that the quantity can be: none in the margin below the least it can be."""

    def __init__(self, low: float, high: float) -> None:
        # without steps of 2.5, whose labels are longer and run into one another on a narrow axis
        super().__init__(nbins="auto", steps=[1, 2, 5, 10])
        self._low, self._high = low, high

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        return [tick for tick in super().tick_values(vmin, vmax) if self._low <= tick <= self._high]


def _draw_row(ax: Axes, row: int, values: list[float], interval: Interval, look: MethodStyle) -> None:
    for number, value in enumerate(values):
        offset = -0.12 - 0.16 * (number / max(len(values) - 1, 1))  # points of near seeds are spread upwards
        ax.plot(value, row + offset, look.marker, mfc="none", mec=look.color, ms=4.5, mew=0.9, alpha=0.85)
    if interval.n == 0:
        return
    if not math.isnan(interval.low):
        ends = [interval.low, interval.high]
        ax.plot(ends, [row + 0.15] * 2, color=look.color, lw=1.8, solid_capstyle="butt")
        ax.plot(ends, [row + 0.15] * 2, "|", color=look.color, ms=7, mew=1.4)
    ax.plot(interval.mean, row + 0.15, look.marker, color=look.color, ms=7, mec="white", mew=0.7)


def _choose_limits(
    values: list[float], intervals: list[Interval], low: float, high: float
) -> tuple[float, float]:
    """Return the limits of an axis with a margin around values and intervals.

    No interval reaches past what the quantity can be, which is from `low` to `high`, but for rounding.
    """
    ends = [end for each in intervals if not math.isnan(each.low) for end in (each.low, each.high)]
    first, last = max(min(values + ends), low), min(max(values + ends), high)
    first, last = min(first, *values), max(last, *values)
    # values that differ by rounding alone must not fill the axis
    margin = max(0.06 * (last - first), 0.01 * max(abs(first), abs(last))) or 0.06
    return first - margin, last + margin


def explain_points(figure: Figure, what: str, interval: str = "95% t interval over n seeds") -> None:
    """Draw a legend below the panels that says what the points and bars are."""
    grey, labels = "#444444", (f"one seed's {what}", f"mean, {interval}")
    handles = [
        Line2D([], [], ls="", marker="o", mfc="none", mec=grey, ms=4.5, label=labels[0]),
        Line2D([], [], color=grey, lw=1.8, marker="o", mec="white", ms=7, label=labels[1]),
    ]
    columns = _count_columns(figure, labels, 2)
    if columns == 1:
        figure.set_figheight(figure.get_figheight() + 0.17)  # a second line below the panels
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.4)


def _count_columns(figure: Figure, labels: Sequence[str], most: int) -> int:
    """Return how many columns of a legend fit the figure: some 0.6 inches a line and 0.075 a character.

    As columns are as wide as their own labels, two of them may be of unlike width.
    """
    widths = sorted((0.6 + 0.075 * len(label) for label in labels), reverse=True)
    fitting = [n for n in range(1, most + 1) if sum(widths[:n]) <= figure.get_figwidth()]
    return max(fitting, default=1)


def draw_means(
    ax: Axes, places: list[float], cells: dict[str, list[list[float]]], styles: dict[str, MethodStyle]
) -> None:
    """Draw a line a method through means at `places`, with 95% t intervals; accuracies in percent.

    cells: of each method and place one number a seed. Methods stand a little apart, so that the
    intervals can be told from one another.
    """
    gap = min((b - a for a, b in zip(places, places[1:], strict=False)), default=1.0)
    step = min(0.08, 0.4 / max(len(cells), 1)) * gap
    means: list[float] = []
    intervals: list[Interval] = []
    for number, (name, values) in enumerate(cells.items()):
        shift = (number - (len(cells) - 1) / 2) * step
        both = zip(places, values, strict=True)
        found = [(place + shift, measure_interval(cell, 0, 100)) for place, cell in both if cell]
        for place, interval in found:
            if not math.isnan(interval.low):
                ax.plot([place] * 2, [interval.low, interval.high], color=styles[name].color, lw=1.2)
        ax.plot([x for x, _ in found], [each.mean for _, each in found], **styles[name].curve)
        means += [each.mean for _, each in found]
        intervals += [each for _, each in found]
    if means:
        ax.set_ylim(_choose_limits(means, intervals, 0, 100))
    else:
        draw_remark(ax, "nothing finished to show")


def draw_curves(ax: Axes, rows: pd.DataFrame, styles: dict[str, MethodStyle], scale: float = 1) -> bool:
    """Draw each seed as a thin line, and their mean as a thick one with markers, over optimiser steps.

    rows: of one metric of the table `history`; values that are NaN were not measured. Returns whether there
    was anything to draw.
    """
    rows = rows[rows["value"].notna()]
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
        ax.plot(mean.index, mean, **look.curve, markevery=(start, every))
    return bool(ax.lines)


def draw_method_legend(
    figure: Figure, styles: dict[str, MethodStyle], title: str, lines: bool = True
) -> None:
    """Draw a legend of the methods below the panels; without `lines`, of their markers alone."""
    points = {} if lines else {"ls": "", "mfc": "none", "ms": 6, "mew": 1.2}
    handles = [Line2D([], [], **{**look.curve, **points}, label=name) for name, look in styles.items()]
    columns = _count_columns(figure, list(styles), len(handles))
    title = wrap_text(title, int(figure.get_figwidth() * 15))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=title)
    legend.set_frame_on(False)

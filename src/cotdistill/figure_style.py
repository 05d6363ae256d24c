"""How every figure looks, and the parts that figures share: panels, method styles, saving."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cotdistill.config.grid import expand
from cotdistill.config.models import Experiment
from cotdistill.files import atomic
from cotdistill.results.statistics import Interval

# Okabe and Ito (2008), without yellow, which is too pale for thin lines on white
PALETTE = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (1, 3)),
    (0, (3, 4)),
)

PANEL_WIDTH = 3.3
"""inches of one panel, without the labels on its left"""

# Any: matplotlib's stubs know each key by name
_RC: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.5,
    "legend.handlelength": 3.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.dpi": 150,
    "pdf.fonttype": 42,  # text stays text, in an embedded font
}


@dataclass(frozen=True)
class MethodStyle:
    """How one method is drawn, in every figure of an experiment."""

    color: str
    marker: str
    line: Any


@dataclass(frozen=True)
class Panel:
    """One (dataset, student, labels, fraction) of the grid and where it is drawn."""

    dataset: str
    student: str
    labels: str
    fraction: float
    title: str

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of `table` (results or history) that belong to this panel."""
        keep = pd.Series(True, index=table.index)
        for axis in ("dataset", "student", "labels", "fraction"):
            keep &= table[axis] == getattr(self, axis)
        return table[keep]


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this: the settings hold for the figures made in it and leave no trace.

    The user's own matplotlib settings are set aside, so that a figure is the same everywhere.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def method_styles(experiment: Experiment) -> dict[str, MethodStyle]:
    """A colour, a marker and a line for each method, the baseline first.

    No two of 8 methods share a marker or a line, so that they differ in greyscale too.
    """
    names = [method.name for method in experiment.methods]
    names.sort(key=lambda name: name != experiment.baseline)  # stable: the rest keeps its order
    looks = zip(itertools.cycle(PALETTE), itertools.cycle(MARKERS), itertools.cycle(LINES), strict=False)
    return {name: MethodStyle(*look) for name, look in zip(names, looks, strict=False)}


def panels(experiment: Experiment) -> list[Panel]:
    """The panels of the grid, datasets fastest; a title names what varies between panels."""
    cells = [(r.student.name, r.labels, r.fraction, r.dataset.name) for r in expand(experiment)]
    order = {dataset.name: number for number, dataset in enumerate(experiment.datasets)}
    first = {cell: number for number, cell in reversed(list(enumerate(cell[:3] for cell in cells)))}
    unique = sorted(dict.fromkeys(cells), key=lambda cell: (first[cell[:3]], order[cell[3]]))
    varies = [len({cell[axis] for cell in unique}) > 1 for axis in range(3)]
    return [
        Panel(dataset, student, labels, fraction, _title((student, labels, fraction), varies, dataset))
        for student, labels, fraction, dataset in unique
    ]


def _title(values: tuple[str, str, float], varies: list[bool], dataset: str) -> str:
    student, labels, fraction = values
    words = [student, f"{labels} labels", f"{100 * fraction:g}% of the data"]
    chosen = [word for word, vary in zip(words, varies, strict=True) if vary]
    return "\n".join(wrap(part, 42) for part in [dataset, ", ".join(chosen)] if part)


def constants(experiment: Experiment) -> str:
    """One line on what is the same in all panels of an experiment."""
    cells = panels(experiment)
    words = [experiment.experiment]
    if len({panel.student for panel in cells}) == 1:
        words.append(f"student {cells[0].student}")
    if len({panel.labels for panel in cells}) == 1:
        words.append(f"{cells[0].labels} labels")
    if len({panel.fraction for panel in cells}) == 1:
        words.append(f"{100 * cells[0].fraction:g}% of the training data")
    return ", ".join(words)


def wrap(text: str, width: int) -> str:
    """`text` in lines of at most `width` characters, cut at spaces or after '-', '_', '.' and '/'."""
    lines = [""]
    for piece in re.findall(r"[^\s\-_./]*[\s\-_./]*", text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        lines[-1] += piece
    # a piece that is longer than a line has no better place to be cut
    cut = [line[start : start + width] for line in lines for start in range(0, len(line), width)]
    return "\n".join(line.rstrip() for line in cut)


def headline(figure: Figure, text: str) -> None:
    """The title of the whole figure, wrapped to its width."""
    figure.suptitle(wrap(text, int(figure.get_figwidth() * 14)), fontsize=10)


def panel_grid(cells: list[Panel], height: float, left: float) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a panel: a column a dataset where there are 2 to 4, else three a row.

    height: inches of one panel. left: inches of the labels left of the first column.
    """
    datasets = list(dict.fromkeys(panel.dataset for panel in cells))
    combinations = list(dict.fromkeys((panel.student, panel.labels, panel.fraction) for panel in cells))
    if 1 < len(datasets) <= 4:
        columns, rows = len(datasets), len(combinations)
        # a cell that the grid leaves out stays blank, so that columns stay datasets
        row_of = [combinations.index((panel.student, panel.labels, panel.fraction)) for panel in cells]
        places = [row * columns + datasets.index(p.dataset) for row, p in zip(row_of, cells, strict=True)]
    else:
        columns = min(3, len(cells))
        rows = -(-len(cells) // columns)
        places = list(range(len(cells)))
    extra = 0.14 * max(panel.title.count("\n") for panel in cells)
    width = max(columns * PANEL_WIDTH + left, 5.5)
    figure = Figure(figsize=(width, rows * (height + extra) + 1.1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, ax in enumerate(axes):
        if place not in places:
            ax.set_axis_off()
    chosen = [axes[place] for place in places]
    for panel, ax in zip(cells, chosen, strict=True):
        ax.set_title(panel.title, loc="left")
    return figure, chosen


def label_width(names: list[str], width: int = 28) -> float:
    """Inches that the longest of `names` needs beside an axis when wrapped at `width` characters."""
    return 0.3 + 0.075 * max(len(line) for name in names for line in wrap(name, width).split("\n"))


def method_rows(ax: Axes, names: list[str], counts: list[int]) -> None:
    """Turn the y axis into one row a method, first on top, with its n on the right."""
    places = list(range(len(names)))
    spec = ax.get_subplotspec()
    first = spec is None or spec.is_first_col()
    ax.set_yticks(places, [wrap(name, 28) if first else "" for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    right = ax.secondary_yaxis("right")
    right.set_yticks(places, [f"n={count}" for count in counts], fontsize=8)
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)


def seeds_and_interval(
    ax: Axes, row: int, values: list[float], interval: Interval, look: MethodStyle
) -> None:
    """One method's row: every seed as a hollow point, below it the mean with its interval.

    values: one number a seed, in the unit of the x axis. Points of near seeds are spread upwards.
    """
    for number, value in enumerate(values):
        offset = -0.12 - 0.16 * (number / max(len(values) - 1, 1))
        ax.plot(value, row + offset, look.marker, mfc="none", mec=look.color, ms=4.5, mew=0.9, alpha=0.85)
    if interval.n == 0:
        return
    if interval.n > 1:
        ends = [interval.low, interval.high]
        ax.plot(ends, [row + 0.15] * 2, color=look.color, lw=1.8, solid_capstyle="butt")
        ax.plot(ends, [row + 0.15] * 2, "|", color=look.color, ms=7, mew=1.4)
    ax.plot(interval.mean, row + 0.15, look.marker, color=look.color, ms=7, mec="white", mew=0.7)


def explain_points(figure: Figure, what: str) -> None:
    """A legend below the panels that says what the points and bars are."""
    grey = "#444444"
    handles = [
        Line2D([], [], ls="", marker="o", mfc="none", mec=grey, ms=4.5, label=f"one seed's {what}"),
        Line2D(
            [],
            [],
            color=grey,
            lw=1.8,
            marker="o",
            mec="white",
            ms=7,
            label="mean, 95% t interval over n seeds",
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, handlelength=2.4)


def save(figure: Figure, target: Path) -> list[Path]:
    """Write `<target>.png` and `<target>.pdf`, atomically; the same figure gives the same bytes."""
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
        path = target.with_suffix(f".{kind}")
        with atomic(path) as part:
            figure.savefig(part, format=kind, metadata=metadata)
        # the layout is found once: finding it takes longer than drawing
        figure.set_layout_engine("none")
        paths.append(path)
    return paths

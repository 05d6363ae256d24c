"""How every figure looks: settings, colours and markers of methods, the panels of a grid, saving."""

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
from matplotlib.figure import Figure

from cotdistill.common.files import atomic
from cotdistill.config.models import Experiment
from cotdistill.runs.grid import expand

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
GREY = "#555555"
"""what belongs to no method"""

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

_AXES = ("student", "labels", "fraction")


@dataclass(frozen=True)
class MethodStyle:
    """How one method is drawn, in every figure of an experiment."""

    color: str
    marker: str
    line: Any

    @property
    def curve(self) -> dict[str, Any]:
        """Keywords of a line through marked points."""
        return {"color": self.color, "ls": self.line, "lw": 1.6, "marker": self.marker, "ms": 4.5}


@dataclass(frozen=True)
class Panel:
    """One cell of the grid's axes (but method and seed, and what a figure has along an axis of its own)."""

    dataset: str
    others: tuple[tuple[str, Any], ...]
    """(axis, value) of student, labels and fraction"""
    title: str

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `table` (any that has the grid's axes as columns) that belong to this panel."""
        keep = table["dataset"] == self.dataset
        for axis, value in self.others:
            keep &= table[axis] == value
        return table[keep]


@contextmanager
def use_style() -> Iterator[None]:
    """Draw inside this: the settings hold for the figures made in it and leave no trace.

    The user's own matplotlib settings are set aside, so that a figure is the same everywhere.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def choose_styles(experiment: Experiment) -> dict[str, MethodStyle]:
    """Return a colour, a marker and a line for each method, the baseline first.

    No two of 8 methods share a marker or a line, so that they differ in greyscale too.
    """
    names = [method.name for method in experiment.methods]
    names.sort(key=lambda name: name != experiment.baseline)  # stable: the rest keeps its order
    looks = zip(itertools.cycle(PALETTE), itertools.cycle(MARKERS), itertools.cycle(LINES), strict=False)
    return {name: MethodStyle(*look) for name, look in zip(names, looks, strict=False)}


def list_panels(experiment: Experiment, along: str | None = None) -> list[Panel]:
    """Return the panels of the grid, datasets fastest; a title names what varies between panels.

    along: `student` or `fraction` where the figure shows its values within each panel.
    """
    axes = [axis for axis in _AXES if axis != along]
    cells = [
        (tuple({"student": r.student.name, "labels": r.labels, "fraction": r.fraction}[a] for a in axes),
         r.dataset.name)
        for r in expand(experiment)
    ]  # fmt: skip
    order = {dataset.name: number for number, dataset in enumerate(experiment.datasets)}
    first = {others: number for number, (others, _) in reversed(list(enumerate(cells)))}
    unique = sorted(dict.fromkeys(cells), key=lambda cell: (first[cell[0]], order[cell[1]]))
    varying = [axis for place, axis in enumerate(axes) if len({others[place] for others, _ in unique}) > 1]
    return [
        Panel(dataset, tuple(zip(axes, others, strict=True)),
              _make_title(dataset, dict(zip(axes, others, strict=True)), varying))
        for others, dataset in unique
    ]  # fmt: skip


def _make_title(dataset: str, others: dict[str, Any], varying: list[str]) -> str:
    chosen = ", ".join(_say_level(axis, others[axis]) for axis in varying)
    return "\n".join(wrap_text(part, 42) for part in [dataset, chosen] if part)


def _say_level(axis: str, value: Any) -> str:
    """Return the value of an axis in words."""
    return {"student": "{}", "labels": "{} labels"}.get(axis, "{:.4g}% of the data").format(
        100 * value if axis == "fraction" else value
    )


def describe_constants(experiment: Experiment, along: str | None = None) -> str:
    """Return one line on what is the same in all panels of an experiment; `along`: see `list_panels`."""
    cells = [dict(panel.others) for panel in list_panels(experiment, along)]
    words = [experiment.experiment]
    for axis in cells[0]:
        if len({cell[axis] for cell in cells}) == 1:
            prefix = "student " if axis == "student" else ""
            words.append(prefix + _say_level(axis, cells[0][axis]))
    return ", ".join(words)


def wrap_text(text: str, width: int) -> str:
    """Return `text` in lines of at most `width` characters, cut at spaces or after '-', '_', '.' and '/'."""
    lines = [""]
    for piece in re.findall(r"[^\s\-_./]*[\s\-_./]*", text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        lines[-1] += piece
    # a piece that is longer than a line has no better place to be cut
    cut = [line[start : start + width] for line in lines for start in range(0, len(line), width)]
    return "\n".join(line.rstrip() for line in cut)


def save_figure(figure: Figure, target: Path) -> list[Path]:
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

"""How well the states of one task tell those of the other, by method, beside its controls."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.analysis.words import join_names
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import NO_INTERVAL, count_seeds, describe_missing, describe_seeds
from cotdistill.report.figures._parts import (
    draw_headline,
    draw_remark,
    draw_seeds,
    label_method_rows,
    make_facets,
    make_message,
    measure_labels,
)
from cotdistill.report.figures._predictability import (
    PREFIX,
    SPACES,
    explain_absence,
    explain_numbers,
    list_spaces,
)
from cotdistill.report.figures._style import GREY, MethodStyle, choose_styles, describe_constants, list_panels

CONTROLS = {
    "untrained": ("v", "untrained student"),
    "same_label": ("d", "same label, another question"),
    "shuffled": ("x", "all pairs shuffled"),
}
"""control -> its marker, its words"""


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one row per dataset, student, labels and fraction; a share and an excess a representation."""
    rows = _select_rows(tables)
    spaces = list_spaces(rows["measure"])
    if not spaces:
        return make_message(explain_absence(experiment))
    cells, styles = list_panels(experiment), choose_styles(experiment)
    names = [method.name for method in experiment.methods if method.name in set(rows["method"])]
    kinds = [(space, kind) for space in spaces for kind in ("share", "excess")]
    titles = [f"{SPACES[space].replace(', ', chr(10))}: {kind}" for space, kind in kinds]
    figure, grid = make_facets(cells, titles, 0.75 + 0.42 * len(names), 2.4, measure_labels(names))
    for panel, axes in zip(cells, grid, strict=True):
        inside = panel.of(rows)
        for (space, kind), ax in zip(kinds, axes, strict=True):
            own = inside[inside["measure"].str.startswith(f"{PREFIX}{space}/")]
            if own.empty:
                draw_remark(ax, "not measured")
                ax.set_xlabel("points")
                continue
            values = [_list_values(own, name, f"{PREFIX}{space}/{kind}") for name in names]
            counts = draw_seeds(ax, values, [styles[name] for name in names], -math.inf, 100)
            label_method_rows(ax, names, counts)
            shown = _draw_controls(ax, own, names, f"{PREFIX}{space}") if kind == "share" else []
            ax.axvline(0, color=GREY, lw=0.8, ls=":")
            _widen(ax, [0.0, *shown, *(value for cell in values for value in cell)])
            ax.set_xlabel("% of the ceiling" if kind == "share" else "points above the controls")
    draw_headline(figure, f"Predictability of one task's states: {describe_constants(experiment)}")
    _explain_marks(figure)
    return figure


def _list_values(rows: pd.DataFrame, method: str, measure: str) -> list[float]:
    own = rows[(rows["method"] == method) & (rows["measure"] == measure)]
    return list(100 * own.sort_values("seed")["value"])


def _draw_controls(ax: Axes, rows: pd.DataFrame, names: list[str], prefix: str) -> list[float]:
    """Draw the mean over seeds of each control in the rows of the methods; return these means."""
    shown = []
    for place, name in enumerate(names):
        for control, (marker, _) in CONTROLS.items():
            values = _list_values(rows, name, f"{prefix}/{control}/share")
            if values:
                mean = sum(values) / len(values)
                ax.plot(mean, place + 0.15, marker, color=GREY, mfc="none", ms=5.5, mew=1.1)
                shown.append(mean)
    return shown


def _widen(ax: Axes, values: list[float]) -> None:
    """Have the axis hold more values, with a margin, beside what it holds."""
    low, high = ax.get_xlim()
    low, high = min(low, *values), max(high, *values)
    margin = 0.05 * (high - low)
    ax.set_xlim(low - margin, high + margin)


def _explain_marks(figure: Figure) -> None:
    style = MethodStyle("#444444", "o", "-")
    handles = [
        Line2D([], [], ls="", marker="o", mfc="none", mec=style.color, ms=4.5, label="one seed"),
        Line2D([], [], color=style.color, lw=1.8, marker="o", mec="white", ms=7,
               label="mean, 95% t interval over n seeds"),
        *(Line2D([], [], ls="", marker=marker, color=GREY, mfc="none", ms=5.5, label=f"{words} (mean)")
          for marker, words in CONTROLS.values()),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, handlelength=2.0)


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n, the interval and how to read the numbers."""
    rows = _select_rows(tables)
    spaces = list_spaces(rows["measure"])
    if not spaces:
        return explain_absence(experiment)
    n = int(rows.loc[rows["measure"] == f"{PREFIX}n", "value"].max())
    return (
        "How well the states of the label task can be told from those of the rationale task in "
        f"{experiment.experiment}, on n = {n} test examples, at the checkpoint chosen on validation. "
        f"{explain_numbers(spaces)} Hollow points are seeds, the filled point below them is their mean "
        f"({describe_seeds(count_seeds(rows))} each), and the bar is the 95% Student t interval over seeds, "
        f"which does not cover the choice of examples; {NO_INTERVAL}. Grey marks are controls, means over "
        "seeds. Methods without a rationale task are left out."
        f"{_describe_unmeasured(rows, experiment)}{describe_missing(tables.results)}"
    )


def _describe_unmeasured(rows: pd.DataFrame, experiment: Experiment) -> str:
    """Return a sentence on the datasets whose panels are empty; an empty string without any."""
    names = [each.name for each in experiment.datasets if each.name not in set(rows["dataset"])]
    if not names:
        return ""
    least = experiment.evaluation.predictability
    return (
        f" Not measured on {join_names(names)}: it takes {least} test examples with a rationale; the reasons "
        "in metrics.json say more."
    )


def _select_rows(tables: AnalysedTables) -> pd.DataFrame:
    measures = tables.measures
    return measures[measures["measure"].str.startswith(PREFIX)]

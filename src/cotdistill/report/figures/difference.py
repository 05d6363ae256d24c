"""Paired difference from the baseline: each seed as a point, the mean with its 95 % interval."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.analysis.comparison import select_by_seed
from cotdistill.analysis.intervals import Interval, subtract_by_seed
from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import describe_groups, describe_seeds
from cotdistill.report.figures._parts import (
    draw_headline,
    draw_seeds,
    explain_points,
    label_method_rows,
    make_message,
    make_panels,
    measure_labels,
)
from cotdistill.report.figures._style import (
    GREY,
    Panel,
    choose_styles,
    describe_constants,
    list_panels,
    wrap_text,
)


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one panel per dataset, student, labels and fraction; one row per method but the baseline."""
    names = _list_others(experiment)
    if not names:
        return make_message(_explain_absence(experiment))
    styles = choose_styles(experiment)
    cells = list_panels(experiment)
    figure, axes = make_panels(cells, 0.75 + 0.42 * len(names), measure_labels(names))
    for panel, ax in zip(cells, axes, strict=True):
        values = [_compute_differences(tables.results, panel, name, experiment.baseline) for name in names]
        found = panel.of(tables.evidence).set_index("method")
        intervals = [_select_interval(found, name) for name in names]
        counts = draw_seeds(ax, values, [styles[name] for name in names], -100, 100, intervals)
        if any(counts):
            # 0 is always in sight, and differences of next to nothing are not blown up
            low, high = min(ax.get_xlim()[0], 0.0), max(ax.get_xlim()[1], 0.0)
            margin = max(0.03 * (high - low), 0.25)
            ax.set_xlim(low - margin, high + margin)
            ax.axvline(0, color=GREY, lw=1.0, zorder=1)
        label_method_rows(ax, names, counts)
        ax.set_xlabel(wrap_text(f"difference from {experiment.baseline} (percentage points)", 46))
    draw_headline(figure, f"Paired difference in test accuracy: {describe_constants(experiment)}")
    explain_points(figure, "difference", "95% bootstrap interval over seeds and test examples")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n and the interval."""
    results = tables.results
    names, cells = _list_others(experiment), list_panels(experiment)
    if not names:
        return _explain_absence(experiment)
    counts = [
        len(_compute_differences(results, panel, name, experiment.baseline))
        for panel in cells
        for name in names
    ]
    return (
        f"Difference in test accuracy from {experiment.baseline}, in percentage points, paired by seed: "
        "in one seed every method sees the same data in the same order from the same initial weights. "
        "Hollow points are seeds, the filled point below them is their mean "
        f"({describe_seeds(counts)} in common with the baseline), and the bar is the 95% bootstrap interval "
        "over seeds and test examples; one seed, and differences that are all equal, have no bar. Each bar "
        "is for its own comparison: the verdict and the table correct for making several (Holm)."
        f"{describe_groups(results)}"
    )


def _explain_absence(experiment: Experiment) -> str:
    return f"Only {experiment.baseline} is in the grid of {experiment.experiment}: no difference to show."


def _list_others(experiment: Experiment) -> list[str]:
    return [method.name for method in experiment.methods if method.name != experiment.baseline]


def _select_interval(found: pd.DataFrame, name: str) -> Interval:
    """Return the interval of the evidence, in percentage points."""
    if name not in found.index or not found.loc[name, "n_seeds"]:
        return Interval(0, math.nan, math.nan, math.nan, math.nan)
    row = found.loc[name]
    mean, low, high = (100 * float(row[column]) for column in ("difference", "low", "high"))
    if row["n_seeds"] == 1:  # an interval over test examples alone
        low = high = math.nan
    return Interval(int(row["n_seeds"]), mean, math.nan, low, high)


def _compute_differences(results: pd.DataFrame, panel: Panel, name: str, baseline: str) -> list[float]:
    """Return differences in percentage points, one a common seed."""
    rows = panel.of(results)
    ours, reference = (select_by_seed(rows[rows["method"] == method]) for method in (name, baseline))
    return [100 * value for value in subtract_by_seed(ours, reference).values()]

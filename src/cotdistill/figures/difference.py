"""Paired difference from the baseline: each seed as a point, the mean with its 95 % interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.config.models import Experiment
from cotdistill.figure_style import (
    Panel,
    constants,
    explain_points,
    headline,
    label_width,
    method_rows,
    method_styles,
    panel_grid,
    panels,
    seeds_and_interval,
    wrap,
)
from cotdistill.figures import seeds_text
from cotdistill.results.compare import by_seed
from cotdistill.results.statistics import differences, t_interval


def draw(results: pd.DataFrame, history: pd.DataFrame, experiment: Experiment) -> Figure:
    """One panel per dataset, student, labels and fraction; one row per method but the baseline."""
    names = _others(experiment)
    if not names:
        figure = Figure(figsize=(5, 1.5))
        text = f"only '{experiment.baseline}' in the grid:\nno difference to show"
        figure.text(0.5, 0.5, text, ha="center", va="center")
        return figure
    styles = method_styles(experiment)
    cells = panels(experiment)
    figure, axes = panel_grid(cells, 0.75 + 0.42 * len(names), label_width(names))
    for panel, ax in zip(cells, axes, strict=True):
        ax.axvline(0, color="#555555", lw=1.0, zorder=1)
        counts, reach = [], [0.0]
        for place, name in enumerate(names):
            values = _values(results, panel, name, experiment.baseline)
            interval = t_interval(values)
            seeds_and_interval(ax, place, values, interval, styles[name])
            counts.append(interval.n)
            reach += [*values, *([interval.low, interval.high] if interval.n > 1 else [])]
        method_rows(ax, names, counts)
        margin = 0.06 * max(max(reach) - min(reach), 1)
        ax.set_xlim(min(reach) - margin, max(reach) + margin)
        ax.set_xlabel(wrap(f"difference from {experiment.baseline} (percentage points)", 46))
    headline(figure, f"Paired difference in test accuracy: {constants(experiment)}")
    explain_points(figure, "difference")
    return figure


def caption(results: pd.DataFrame, history: pd.DataFrame, experiment: Experiment) -> str:
    """What the figure shows, n and the interval."""
    names, cells = _others(experiment), panels(experiment)
    if not names:
        return f"Only {experiment.baseline} is in the grid of {experiment.experiment}: no difference to show."
    counts = [len(_values(results, panel, name, experiment.baseline)) for panel in cells for name in names]
    return (
        f"Difference in test accuracy from {experiment.baseline}, in percentage points, paired by seed: "
        "in one seed every method sees the same data in the same order from the same initial weights. "
        "Hollow points are seeds, the filled point below them is their mean "
        f"({seeds_text(counts)} in common with the baseline), and the bar is the 95% Student t interval of "
        "the mean difference over seeds; one seed has no interval. Each bar is for its own comparison: "
        "nothing corrects for making several."
    )


def _others(experiment: Experiment) -> list[str]:
    return [method.name for method in experiment.methods if method.name != experiment.baseline]


def _values(results: pd.DataFrame, panel: Panel, name: str, baseline: str) -> list[float]:
    """Differences in percentage points, one a common seed."""
    rows = panel.of(results)
    ours, reference = (by_seed(rows[rows["method"] == method]) for method in (name, baseline))
    return [100 * value for value in differences(ours, reference).values()]

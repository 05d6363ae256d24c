"""Test accuracy of every method: each seed as a point, the mean with its 95 % interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.config.models import Experiment
from cotdistill.figure_style import (
    constants,
    explain_points,
    headline,
    label_width,
    method_rows,
    method_styles,
    panel_grid,
    panels,
    seeds_and_interval,
)
from cotdistill.figures import seeds_text
from cotdistill.results.compare import by_seed
from cotdistill.results.statistics import t_interval


def draw(results: pd.DataFrame, history: pd.DataFrame, experiment: Experiment) -> Figure:
    """One panel per dataset, student, labels and fraction; one row per method."""
    names = [method.name for method in experiment.methods]
    styles = method_styles(experiment)
    cells = panels(experiment)
    figure, axes = panel_grid(cells, 0.75 + 0.42 * len(names), label_width(names))
    for panel, ax in zip(cells, axes, strict=True):
        rows = panel.of(results)
        counts, reach = [], []
        for place, name in enumerate(names):
            values = [100 * value for value in by_seed(rows[rows["method"] == name]).values()]
            interval = t_interval(values)
            seeds_and_interval(ax, place, values, interval, styles[name])
            counts.append(interval.n)
            reach += [*values, *([interval.low, interval.high] if interval.n > 1 else [])]
        method_rows(ax, names, counts)
        ax.set_xlabel("test accuracy (%)")
        if reach:
            margin = 0.06 * max(max(reach) - min(reach), 1)
            # an interval of few seeds may reach past what an accuracy can be: do not draw that part
            ax.set_xlim(max(min(reach) - margin, -2), min(max(reach) + margin, 102))
    headline(figure, f"Test accuracy: {constants(experiment)}")
    explain_points(figure, "accuracy")
    return figure


def caption(results: pd.DataFrame, history: pd.DataFrame, experiment: Experiment) -> str:
    """What the figure shows, n and the interval."""
    done = results[results["status"] == "done"]
    counts = (
        results.assign(done=results["status"] == "done")
        .groupby(["dataset", "student", "method", "labels", "fraction"])["done"]
        .sum()
    )
    missing = len(results) - len(done)
    return (
        f"Test accuracy of {experiment.experiment}, by method, of the checkpoint chosen on validation. "
        "Hollow points are seeds, the filled point below them is their mean "
        f"({seeds_text(list(counts))} each), and the bar is the 95% Student t interval of the mean over "
        "seeds. The interval covers the variation between seeds, not the error of measuring on a finite "
        "test set; one seed has no interval. The n of each method stands on the right."
        f"{f' Runs missing: {missing}.' if missing else ''}"
    )

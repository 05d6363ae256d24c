"""Test accuracy of every method: each seed as a point, the mean with its 95 % interval."""

from __future__ import annotations

from matplotlib.figure import Figure

from cotdistill.analysis.comparison import select_by_seed
from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import NO_INTERVAL, count_seeds, describe_missing, describe_seeds
from cotdistill.report.figures._parts import (
    draw_headline,
    draw_seeds,
    explain_points,
    label_method_rows,
    make_panels,
    measure_labels,
)
from cotdistill.report.figures._style import choose_styles, describe_constants, list_panels


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one panel per dataset, student, labels and fraction; one row per method."""
    names = [method.name for method in experiment.methods]
    styles = choose_styles(experiment)
    cells = list_panels(experiment)
    figure, axes = make_panels(cells, 0.75 + 0.42 * len(names), measure_labels(names))
    for panel, ax in zip(cells, axes, strict=True):
        rows = panel.of(tables.results)
        values = [[100 * v for v in select_by_seed(rows[rows["method"] == name]).values()] for name in names]
        label_method_rows(ax, names, draw_seeds(ax, values, [styles[name] for name in names], 0, 100))
        ax.set_xlabel("test accuracy (%)")
    draw_headline(figure, f"Test accuracy: {describe_constants(experiment)}")
    explain_points(figure, "accuracy")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n and the interval."""
    results = tables.results
    return (
        f"Test accuracy of {experiment.experiment}, by method, of the checkpoint chosen on validation. "
        "Hollow points are seeds, the filled point below them is their mean "
        f"({describe_seeds(count_seeds(results))} each), and the bar is the 95% Student t interval of the "
        "mean over seeds. The interval covers the variation between seeds, not the error of measuring on a "
        f"finite test set; {NO_INTERVAL}. The n of each method stands on the right."
        f"{describe_missing(results)}"
    )

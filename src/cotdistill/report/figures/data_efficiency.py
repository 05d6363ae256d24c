"""Test accuracy against the fraction of the training data, by method."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import NO_INTERVAL, count_seeds, describe_missing, describe_seeds
from cotdistill.report.figures._levels import draw_levels
from cotdistill.report.figures._parts import draw_headline, make_message
from cotdistill.report.figures._style import describe_constants
from cotdistill.runs.grid import expand


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one panel per dataset, student and labels; one line per method."""
    fractions = sorted({run.fraction for run in expand(experiment)})
    if len(fractions) < 2:
        return make_message(_explain_absence(experiment, fractions[0]))
    places = [math.log2(fraction) for fraction in fractions]
    figure, panels = draw_levels(tables, experiment, "fraction", fractions, places)
    for rows, ax in panels:
        ax.set_xticks(places, [_label_tick(rows, fraction) for fraction in fractions])
        ax.set_xlabel("training data (fraction, examples)")
    draw_headline(figure, f"Data efficiency: {describe_constants(experiment, along='fraction')}")
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
        f"cover the variation between seeds and of the subset drawn; {NO_INTERVAL}. Within a seed "
        "a smaller subset is part of every larger one, and all methods get the same. Methods stand a little "
        f"apart so that their bars can be told from one another.{describe_missing(tables.results)}"
    )


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

"""Reliability diagrams: how often an answer of a given confidence is right, by method."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment, OptionScore
from cotdistill.evaluation.calibration import OPTIONS, reliability
from cotdistill.report.figures._captions import count_seeds, describe_missing, describe_seeds
from cotdistill.report.figures._parts import draw_headline, draw_remark, make_message, make_panels
from cotdistill.report.figures._style import GREY, MethodStyle, choose_styles, describe_constants, list_panels

FEW = 20
"""bins with fewer examples, over all seeds, are drawn faint"""


class _Confidences(NamedTuple):
    kind: str
    examples: pd.DataFrame
    """columns method, confidence and correct"""
    errors: pd.DataFrame
    """the measure of the expected calibration error of these, in bins of equal width, a row a run"""


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one panel per dataset, student, labels and fraction, one line per method, errors in the legend."""
    if tables.examples.empty:
        return make_message(_explain_absence(experiment))
    cells, styles, bins = list_panels(experiment), choose_styles(experiment), experiment.evaluation.bins
    figure, axes = make_panels(cells, 2.9 + 0.17 * (len(styles) + 1), 0.6)
    for panel, ax in zip(cells, axes, strict=True):
        score = experiment.evaluation.option_score
        found = _choose_confidence(panel.of(tables.examples), panel.of(tables.measures), score)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.set_xlabel(f"confidence ({found.kind})")
        ax.set_ylabel("accuracy")
        if found.examples.empty:
            draw_remark(ax, "no finished run")
            continue
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (1, 1)), label="perfect calibration")
        for name, look in styles.items():
            _draw_line(ax, found, name, look, bins)
        ax.legend(loc="upper left", bbox_to_anchor=(-0.04, -0.16), frameon=False, borderpad=0)
    draw_headline(figure, f"Reliability ({bins} bins of equal width): {describe_constants(experiment)}")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n, the number of bins and which confidence it is."""
    if tables.examples.empty:
        return _explain_absence(experiment)
    return (
        f"Reliability of {experiment.experiment} on test, in {experiment.evaluation.bins} bins of equal "
        "width: the accuracy of the answers in a bin against their mean confidence, over the examples of all "
        f"seeds ({describe_seeds(count_seeds(tables.examples))} a method). Above the diagonal a student is "
        "right more often than it is sure, below it less often. Confidence is the normalised probability of "
        f"the likeliest option by the {_name_score(experiment)} of its tokens, and accuracy that option's, "
        "where the label set is closed (options); elsewhere the probability of the generated sequence, and "
        "its accuracy. ECE is the expected calibration error, computed a seed and averaged. Bins with fewer "
        f"than {FEW} examples are faint and "
        f"unconnected. No interval is drawn.{describe_missing(tables.results)}"
    )


def _name_score(experiment: Experiment) -> str:
    return "summed log-likelihoods" if experiment.evaluation.option_score == "sum" else "mean log-likelihood"


def _explain_absence(experiment: Experiment) -> str:
    return f"No finished run of {experiment.experiment} has test examples: no reliability to show."


def _choose_confidence(examples: pd.DataFrame, measures: pd.DataFrame, score: OptionScore) -> _Confidences:
    """Return the confidence of options where all runs of a panel scored some, else that of the sequence."""
    options = bool(len(examples)) and bool(examples["option_confidence"].notna().all())
    words, kind, correct, confidence = (
        ("options", OPTIONS[score], "option_correct", "option_confidence")
        if options
        else ("generated sequence", "sequence", "correct", "confidence")
    )
    chosen = examples[["method"]].assign(
        confidence=examples[confidence], correct=examples[correct].astype(bool)
    )
    return _Confidences(words, chosen, measures[measures["measure"] == f"calibration/{kind}/ece_width"])


def _draw_line(ax: Axes, found: _Confidences, name: str, look: MethodStyle, bins: int) -> None:
    examples = found.examples[found.examples["method"] == name]
    if examples.empty:
        return
    rows = reliability(examples["confidence"].to_numpy(), examples["correct"].to_numpy(), bins)
    enough = [row for row in rows if row["n"] >= FEW]
    faint = [row for row in rows if row["n"] < FEW]
    errors = found.errors.loc[found.errors["method"] == name, "value"]
    label = f"{name}: ECE {errors.mean():.3f} (n={len(errors)})"
    ax.plot(
        [row["confidence"] for row in enough], [row["accuracy"] for row in enough], **look.curve, label=label
    )
    ax.plot(
        [row["confidence"] for row in faint], [row["accuracy"] for row in faint], look.marker, ms=4,
        mfc="none", mec=look.color, alpha=0.35,
    )  # fmt: skip

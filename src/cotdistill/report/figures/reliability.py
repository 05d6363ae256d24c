"""Reliability diagrams: how often an answer of a given confidence is right, by method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cotdistill.config.models import Experiment
from cotdistill.evaluation.calibration import ece, reliability
from cotdistill.report.figures import missing_text, seeds_of_cells, seeds_text
from cotdistill.report.figures._parts import headline, message, panel_grid, remark
from cotdistill.report.figures._style import GREY, MethodStyle, constants, method_styles, panels
from cotdistill.tables.store import Tables

FEW = 20
"""bins with fewer examples, over all seeds, are drawn faint"""


class _Confidences(NamedTuple):
    kind: str
    examples: pd.DataFrame
    """columns method, seed, confidence and correct"""


def draw(tables: Tables, experiment: Experiment) -> Figure:
    """One panel per dataset, student, labels and fraction; one line per method, its error in the legend."""
    if tables.examples.empty:
        return message(_nothing(experiment))
    cells, styles, bins = panels(experiment), method_styles(experiment), experiment.evaluation.bins
    figure, axes = panel_grid(cells, 2.9 + 0.17 * (len(styles) + 1), 0.6)
    for panel, ax in zip(cells, axes, strict=True):
        found = _chosen(panel.of(tables.examples))
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.set_xlabel(f"confidence ({found.kind})")
        ax.set_ylabel("accuracy")
        if found.examples.empty:
            remark(ax, "no finished run")
            continue
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (1, 1)), label="perfect calibration")
        for name, look in styles.items():
            _line(ax, found.examples[found.examples["method"] == name], name, look, bins)
        ax.legend(loc="upper left", bbox_to_anchor=(-0.04, -0.16), frameon=False, borderpad=0)
    headline(figure, f"Reliability ({bins} bins of equal width): {constants(experiment)}")
    return figure


def caption(tables: Tables, experiment: Experiment) -> str:
    """What the figure shows, n, the number of bins and which confidence it is."""
    if tables.examples.empty:
        return _nothing(experiment)
    return (
        f"Reliability of {experiment.experiment} on test, in {experiment.evaluation.bins} bins of equal "
        "width: the accuracy of the answers in a bin against their mean confidence, over the examples of all "
        f"seeds ({seeds_text(seeds_of_cells(tables.examples))} a method). Above the diagonal a student is "
        "right more often than it is sure, below it less often. Confidence is the normalised probability "
        "of the "
        "likeliest option, and accuracy that option's, where the label set is closed (options); "
        "elsewhere the probability of the generated sequence, and its accuracy. ECE is the expected "
        f"calibration error, computed a seed and averaged. Bins with fewer than {FEW} examples are faint and "
        f"unconnected. No interval is drawn.{missing_text(tables.results)}"
    )


def _nothing(experiment: Experiment) -> str:
    return f"No finished run of {experiment.experiment} has test examples: no reliability to show."


def _chosen(examples: pd.DataFrame) -> _Confidences:
    """The confidence of options where all runs of a panel scored some, else that of the sequence."""
    options = bool(len(examples)) and bool(examples["option_confidence"].notna().all())
    kind, correct, confidence = (
        ("options", "option_correct", "option_confidence")
        if options
        else ("generated sequence", "correct", "confidence")
    )
    chosen = examples[["method", "seed"]].assign(
        confidence=examples[confidence], correct=examples[correct].astype(bool)
    )
    return _Confidences(kind, chosen)


def _line(ax: Axes, examples: pd.DataFrame, name: str, look: MethodStyle, bins: int) -> None:
    if examples.empty:
        return
    rows = reliability(*_arrays(examples), bins)
    enough = [row for row in rows if row["n"] >= FEW]
    faint = [row for row in rows if row["n"] < FEW]
    errors = [ece(*_arrays(own), bins) for _, own in examples.groupby("seed")]
    label = f"{name}: ECE {np.mean(errors):.3f} (n={len(errors)})"
    ax.plot(
        [row["confidence"] for row in enough], [row["accuracy"] for row in enough], **look.curve, label=label
    )
    ax.plot(
        [row["confidence"] for row in faint], [row["accuracy"] for row in faint], look.marker, ms=4,
        mfc="none", mec=look.color, alpha=0.35,
    )  # fmt: skip


def _arrays(examples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return examples["confidence"].to_numpy(), examples["correct"].to_numpy()

"""How good generated rationales are, by method: true to the label, like the teacher's, not repetitive."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import NO_INTERVAL, count_seeds, describe_missing, describe_seeds
from cotdistill.report.figures._parts import (
    draw_headline,
    draw_seeds,
    explain_points,
    label_method_rows,
    make_facets,
    make_message,
    measure_labels,
)
from cotdistill.report.figures._style import choose_styles, describe_constants, list_panels

# measure -> title, unit, factor, the most it can be
MEASURES = {
    "faithful_prediction": ("states the predicted label", "% of rationales that state one", 100, 100),
    "faithful_gold": ("states the gold label", "% of rationales that state one", 100, 100),
    "rougeL": ("ROUGE-L with the teacher's", "mean F1", 1, 1),
    "bleu": ("BLEU with the teacher's", "corpus BLEU (0 to 100)", 1, 100),
    "repetition": ("repetition", "fraction of repeated 4-grams", 1, 1),
}


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one row per dataset, student, labels and fraction, one column per measure, a row a method."""
    rows = _select_rows(tables)
    if rows.empty:
        return make_message(_explain_absence(experiment))
    cells, styles = list_panels(experiment), choose_styles(experiment)
    names = [method.name for method in experiment.methods if method.name in set(rows["method"])]
    titles = [title for title, *_ in MEASURES.values()]
    figure, grid = make_facets(cells, titles, 0.75 + 0.42 * len(names), 2.2, measure_labels(names))
    for panel, axes in zip(cells, grid, strict=True):
        inside = panel.of(rows)
        for (measure, (_, unit, factor, most)), ax in zip(MEASURES.items(), axes, strict=True):
            found = inside[inside["measure"] == f"rationale/{measure}"].sort_values("seed")
            values = [list(factor * found["value"][found["method"] == name]) for name in names]
            label_method_rows(ax, names, draw_seeds(ax, values, [styles[n] for n in names], 0, most))
            ax.set_xlabel(unit)
    draw_headline(figure, f"Quality of generated rationales: {describe_constants(experiment)}")
    explain_points(figure, "value")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n, the interval and what each measure is over."""
    rows = _select_rows(tables)
    if rows.empty:
        return _explain_absence(experiment)
    stated = rows["value"][rows["measure"] == "rationale/states_label"]
    said = f" ({100 * stated.min():.0f}% to {100 * stated.max():.0f}% of them, by run)" if len(stated) else ""
    return (
        f"Rationales that the students of {experiment.experiment} generate on test. The first two columns "
        f"are over the rationales that state a label{said}: how often it is the label that the student "
        "itself predicts, and how often it is the gold one. ROUGE-L and BLEU compare with the teacher's "
        "rationale. Repetition is the fraction of 4-grams of words that occurred before in the same "
        "rationale. Hollow "
        f"points are seeds, the filled point below them is their mean ({describe_seeds(count_seeds(rows))} "
        f"each), and the bar is the 95% Student t interval over seeds; {NO_INTERVAL}. Methods "
        f"that generate no rationale apart from the label are left out.{describe_missing(tables.results)}"
    )


def _explain_absence(experiment: Experiment) -> str:
    return f"No rationales of {experiment.experiment} were measured: no quality to show."


def _select_rows(tables: AnalysedTables) -> pd.DataFrame:
    measures = tables.measures
    return measures[measures["measure"].str.startswith("rationale/")]

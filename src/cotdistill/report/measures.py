"""Show the measures of finished runs: which belong to a table, under which heading, in which unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from cotdistill.evaluation.predictability import (
    CANDIDATES,
    CEILING,
    CONTROLS,
    EXCESS,
    FREE_RUNNING,
    REPRESENTATIONS,
)
from cotdistill.tables.columns import CELL


@dataclass(frozen=True)
class MeasureColumn:
    """A column of a table of measures: the measure's name, the heading, and the factor and digits shown."""

    name: str
    heading: str
    scale: float = 1.0
    digits: int = 2


def _list_calibration(kind: str) -> list[MeasureColumn]:
    return [
        MeasureColumn(f"calibration/{kind}/accuracy", "accuracy %", 100, 1),
        MeasureColumn(f"calibration/{kind}/mean_confidence", "mean confidence %", 100, 1),
        MeasureColumn(f"calibration/{kind}/ece_width", "ECE % (equal width)", 100, 1),
        MeasureColumn(f"calibration/{kind}/ece_mass", "ECE % (equal mass)", 100, 1),
        MeasureColumn(f"calibration/{kind}/brier", "Brier", 1, 3),
        MeasureColumn(f"calibration/{kind}/nll", "NLL (nats)", 1, 3),
    ]


def _list_option_scores(score: str) -> list[MeasureColumn]:
    return [
        MeasureColumn(f"options/{score}/accuracy", f"accuracy by {score} %", 100, 1),
        MeasureColumn(f"options/{score}/shortest", f"shortest chosen by {score} %", 100, 1),
    ]


def _list_predictability(space: str) -> list[MeasureColumn]:
    name = f"predictability/{space}"
    return [
        MeasureColumn(f"{name}/excess", "excess (points)", 100, 1),
        MeasureColumn(f"{name}/share", "share %", 100, 1),
        *(MeasureColumn(f"{name}/{control}/share", f"{control.replace('_', ' ')} %", 100, 1)
          for control in CONTROLS),
        MeasureColumn(f"{name}/retrieval", f"found of {CANDIDATES} %", 100, 1),
        MeasureColumn(f"{name}/excess_retrieval", "found, excess (points)", 100, 1),
    ]  # fmt: skip


def _name_predictability(words: str, targets: str) -> str:
    return f"{PREDICTABILITY} ({words}, {targets})"


PREDICTABILITY = "Predictability of the label task's states from the rationale task's, on test"


GROUPS: dict[str, list[MeasureColumn]] = {
    "Variety of the answers": [
        MeasureColumn("answers/distinct", "distinct answers", 1, 1),
        MeasureColumn("answers/commonest_share", "commonest answer, % of test", 100, 1),
        MeasureColumn("answers/commonest_gold_share", "commonest gold label, % of test", 100, 1),
    ],
    "Options chosen by the sum and by the mean of their tokens' log-likelihoods": [
        *_list_option_scores("sum"), *_list_option_scores("mean"),
        MeasureColumn("options/gold/shortest", "gold is shortest %", 100, 1),
    ],
    "Calibration of option scoring": _list_calibration("options"),
    "Calibration of option scoring, by the mean log-likelihood per token": _list_calibration("options_mean"),
    "Calibration of the generated label": _list_calibration("sequence"),
    "Rationales": [
        MeasureColumn("rationale/faithful_prediction", "states the prediction %", 100, 1),
        MeasureColumn("rationale/faithful_gold", "states the gold label %", 100, 1),
        MeasureColumn("rationale/states_label", "states a label %", 100, 1),
        MeasureColumn("rationale/bleu", "BLEU", 1, 1),
        MeasureColumn("rationale/rouge1", "ROUGE-1", 100, 1),
        MeasureColumn("rationale/rouge2", "ROUGE-2", 100, 1),
        MeasureColumn("rationale/rougeL", "ROUGE-L", 100, 1),
        MeasureColumn("rationale/words", "words", 1, 1),
        MeasureColumn("rationale/repetition", "repetition %", 100, 1),
        MeasureColumn("rationale/judge_mean", "judge (1 to 5)"),
    ],
    **{_name_predictability(words, "teacher-forced"): _list_predictability(space)
       for space, words in REPRESENTATIONS.items()},
    **{_name_predictability(words, "free-running"): _list_predictability(f"{FREE_RUNNING}/{space}")
       for space, words in REPRESENTATIONS.items()},
}  # fmt: skip
"""columns of each table of measures by its heading, in the order of the tables"""

PREDICTABILITY_MEANS = (
    f"predictability: share is InfoNCE among {CANDIDATES} examples, by critics that were fitted on others, "
    f"as a share of its ceiling of {CEILING:.2f} nats, and found how often the partner scores highest (by "
    f"chance {1 / CANDIDATES:.1%}), on evaluation.predictability test examples in every run; a lower "
    "bound on the mutual information of the states, not that information. Controls, measured alike: "
    f"{'; '.join(f'{name.replace(chr(95), chr(32))}: {words}' for name, words in CONTROLS.items())}. "
    f"excess: {EXCESS} (where there is one); likewise of found."
)
NOT_MEASURED = "n/a"
NOT_MEASURED_MEANS = "n/a: not measured; `reasons` in the `metrics.json` of the cell's runs say why"


def tabulate_group(
    measures: pd.DataFrame, cells: pd.DataFrame, group: str, varying: list[str]
) -> tuple[list[str], list[list[str]]] | None:
    """Return header and rows of a group of measures; None without values.

    A number is the mean ± the standard deviation over seeds. measures: the long table. cells: rows with the
    axes CELL, in the order to show. varying: axes beside the method that get a column.
    """
    shown = [column for column in GROUPS[group] if (measures["measure"] == column.name).any()]
    rows = []
    for cell in cells[CELL].to_dict("records"):
        keep = pd.Series(True, index=measures.index)
        for axis in CELL:
            keep &= measures[axis] == cell[axis]
        own = measures[keep]
        values = [own.loc[own["measure"] == column.name, "value"] for column in shown]
        if any(len(found) for found in values):
            texts = [_show(found, column) for found, column in zip(values, shown, strict=True)]
            rows.append([cell["method"], *(f"{cell[axis]:g}" if axis == "fraction" else str(cell[axis])
                                           for axis in varying), *texts])  # fmt: skip
    return (["method", *varying, *(column.heading for column in shown)], rows) if rows else None


def _show(values: pd.Series, column: MeasureColumn) -> str:
    found = values.dropna()
    if not len(found):
        return NOT_MEASURED
    mean, sd = column.scale * float(found.mean()), column.scale * float(found.std(ddof=1))
    return f"{mean:.{column.digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{column.digits}f}")

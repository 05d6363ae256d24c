"""What was measured of a finished run beside its accuracy: flat names, and how tables show them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

CELL_AXES = ["dataset", "student", "method", "labels", "fraction"]


@dataclass(frozen=True)
class Shown:
    """A measure in a table: its flat name, its heading, and the factor and digits that it is shown with."""

    name: str
    heading: str
    scale: float = 1.0
    digits: int = 2


def _calibration(kind: str) -> list[Shown]:
    return [
        Shown(f"calibration/{kind}/accuracy", "accuracy %", 100, 1),
        Shown(f"calibration/{kind}/mean_confidence", "mean confidence %", 100, 1),
        Shown(f"calibration/{kind}/ece_width", "ECE % (equal width)", 100, 1),
        Shown(f"calibration/{kind}/ece_mass", "ECE % (equal mass)", 100, 1),
        Shown(f"calibration/{kind}/brier", "Brier", 1, 3),
        Shown(f"calibration/{kind}/nll", "NLL (nats)", 1, 3),
    ]


def _information(space: str) -> list[Shown]:
    return [
        Shown(f"mi/{space}/infonce/value", f"{space}, InfoNCE (nats)"),
        Shown(f"mi/{space}/gaussian/value", f"{space}, Gaussian (nats)"),
    ]


GROUPS: dict[str, list[Shown]] = {
    "Calibration of option scoring": _calibration("options"),
    "Calibration of the generated label": _calibration("sequence"),
    "Rationales": [
        Shown("rationale/faithful_prediction", "states the prediction %", 100, 1),
        Shown("rationale/faithful_gold", "states the gold label %", 100, 1),
        Shown("rationale/states_label", "states a label %", 100, 1),
        Shown("rationale/bleu", "BLEU", 1, 1),
        Shown("rationale/rouge1", "ROUGE-1", 100, 1),
        Shown("rationale/rouge2", "ROUGE-2", 100, 1),
        Shown("rationale/rougeL", "ROUGE-L", 100, 1),
        Shown("rationale/words", "words", 1, 1),
        Shown("rationale/repetition", "repetition %", 100, 1),
        Shown("rationale/judge_mean", "judge (1 to 5)"),
    ],
    "Mutual information between the two tasks, on test": [
        *_information("decoder"), *_information("output"),
    ],
}  # fmt: skip
"""the tables of measures, in their order"""


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers below `measures` in the content of a `metrics.json`, by path: `calibration/options/brier`.

    What is no number (a signature, bins, null) is left out.
    """
    measures = metrics.get("measures")
    return dict(_numbers(measures, "")) if isinstance(measures, Mapping) else {}


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def group_table(
    measures: pd.DataFrame, cells: pd.DataFrame, group: str, varying: list[str]
) -> tuple[list[str], list[list[str]]] | None:
    """Header and rows of one group of measures, mean ± standard deviation over seeds; None without values.

    measures: the long table. cells: rows with CELL_AXES, in the order to show. varying: axes beside the
    method that get a column.
    """
    shown = [item for item in GROUPS[group] if (measures["measure"] == item.name).any()]
    rows = []
    for cell in cells[CELL_AXES].to_dict("records"):
        keep = pd.Series(True, index=measures.index)
        for axis in CELL_AXES:
            keep &= measures[axis] == cell[axis]
        own = measures[keep]
        values = [own.loc[own["measure"] == item.name, "value"] for item in shown]
        if any(len(found) for found in values):
            texts = [_text(found, item) for found, item in zip(values, shown, strict=True)]
            rows.append([cell["method"], *(f"{cell[axis]:g}" if axis == "fraction" else str(cell[axis])
                                           for axis in varying), *texts])  # fmt: skip
    return (["method", *varying, *(item.heading for item in shown)], rows) if rows else None


def _text(values: pd.Series, item: Shown) -> str:
    found = values.dropna()
    if not len(found):
        return "n/a"
    mean, sd = item.scale * float(found.mean()), item.scale * float(found.std(ddof=1))
    return f"{mean:.{item.digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{item.digits}f}")

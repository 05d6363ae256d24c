"""Flatten what was measured of a finished run beside its accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "mean_confidence", "ece_width", "ece_mass", "shortest", "rouge1", "rouge2",
                     "rougeL", "repetition", "states_label", "faithful_prediction", "faithful_gold",
                     "commonest_share", "commonest_gold_share", "retrieval"), (0, 1)),
    "bleu": (0, 100),
    "share": (-math.inf, 1),
    "brier": (0, 2),
    "nll": (0, math.inf),
    "judge_mean": (1, 5),
}  # fmt: skip
"""what a measure can be, by the last part of its name; a share of predictability may fall below 0"""


def find_range(name: str) -> tuple[float, float]:
    """Return the least and the most that the measure `name` can be, such as `calibration/options/brier`."""
    last = name.rsplit("/", 1)[-1]
    if name.endswith("sequence/brier"):  # of one event, where that of options is of several
        return 0, 1
    return RANGES.get(last, (-math.inf, math.inf))


def flatten_measures(measures: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of nested measures by their path, such as `calibration/options/brier`.

    measures: of a `metrics.json`. What is no finite number (a signature, bins, null) is left out.
    """
    return dict(_walk(measures, ""))


def _walk(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{key}", float(value)

"""Flatten what was measured of a finished run beside its accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten_measures(measures: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of nested measures by their path, such as `calibration/options/brier`.

    measures: of a `metrics.json`. What is no number (a signature, bins, null) is left out.
    """
    return dict(_walk(measures, ""))


def _walk(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)

"""Accuracies that the papers and an independent run report, and where they fit beside ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Reported:
    """One reported accuracy, in percent; `low` < `high` where the source gives a range of runs."""

    source: str
    student: str
    """hub id of the checkpoint"""
    method: str
    """the objective, not a name in a config"""
    dataset: str
    """the adapter, not a name in a config"""
    low: float
    high: float
    verified: bool
    step: str = "best on test"
    independent: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    sd: float | None = None
    """standard deviation over `n` runs, where the source gives a mean; in percentage points"""
    n: int | None = None

    @property
    def text(self) -> str:
        """The accuracy with one decimal, with its spread and n, or the range."""
        if self.sd is not None:
            return f"{self.low:.1f} ± {self.sd:.1f} (n={self.n})"
        return f"{self.low:.1f}" if self.low == self.high else f"{self.low:.1f} to {self.high:.1f}"

    def fits(
        self, pretrained: Any, adapter: str, method_settings: dict[str, Any], labels: str, fraction: float
    ) -> bool:
        """Return whether a cell of a grid is the same experiment, up to the protocol.

        The student must be the same published checkpoint, by hub id: a local folder may hold
        anything. The method is compared by its objective and the settings the source names, so an
        entry called 'mi' that minimises something else does not match.
        """
        return (
            pretrained == self.student
            and adapter == self.dataset
            and method_settings.get("method") == self.method
            and all(method_settings.get(key) == value for key, value in self.settings.items())
            and labels == "gold"
            and fraction == 1
        )


@dataclass(frozen=True)
class Protocol:
    """One difference between the published protocol and ours."""

    what: str
    theirs: str
    ours: str
    dataset: str | None = None
    """the adapter it concerns; None means all"""


@cache
def _read_data() -> dict[str, Any]:
    text = Path(__file__).with_name("reported.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


@cache
def read_reported() -> tuple[Reported, ...]:
    """Return all reported accuracies, in the order of the file `reported.yaml`."""
    entries = []
    for row in _read_data()["reported"]:
        values = {"low": row.get("accuracy"), "high": row.get("accuracy"), **row}
        values.pop("accuracy", None)
        entries.append(Reported(**values))
    return tuple(entries)


def read_sources() -> dict[str, str]:
    """Return what each short source name stands for."""
    return dict(_read_data()["sources"])


def read_protocol() -> list[Protocol]:
    """Return how the published numbers were obtained, against how ours are."""
    return [Protocol(**row) for row in _read_data()["protocol"]]

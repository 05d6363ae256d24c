"""Count what happened in simulated experiments, and write it as a row of a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

RESAMPLES = 499
"""of a bootstrap; the decision rule takes more"""
ALPHA = 0.05


@dataclass
class Tally:
    """How often each of some things happened, of how many times it could have."""

    hits: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, hit: bool) -> None:
        """Count one experiment."""
        self.hits[name] = self.hits.get(name, 0) + bool(hit)
        self.totals[name] = self.totals.get(name, 0) + 1

    def share(self, name: str) -> float:
        """Return how often it happened, as a fraction; NaN where it could not have."""
        return self.hits.get(name, 0) / self.totals[name] if self.totals.get(name) else math.nan

    def show(self, name: str) -> str:
        """Return the share in percent with its Monte Carlo standard error."""
        total = self.totals.get(name, 0)
        if not total:
            return "none"
        share = self.share(name)
        # one more of each, as no hit among few is no certainty
        error = math.sqrt((self.hits[name] + 1) * (total - self.hits[name] + 1) / (total + 2) ** 3)
        return f"{100 * share:.1f} ± {100 * error:.1f}"


class Question(Protocol):
    """A module that simulates: the columns of its table, and its rows."""

    COLUMNS: Sequence[str]
    __doc__: str | None

    def list_rows(self, repetitions: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
        """Yield a row for each design, of `repetitions` experiments."""


def show_shares(tally: Tally, names: Sequence[str]) -> list[str]:
    """Return the cells of these columns."""
    return [tally.show(name) for name in names]


def print_table(question: Question, repetitions: int, seeds: Sequence[int]) -> None:
    """Print the table of a question, row by row."""
    print("| " + " | ".join(question.COLUMNS) + " |")
    print("|---" * len(question.COLUMNS) + "|", flush=True)
    for row in question.list_rows(repetitions, seeds):
        print("| " + " | ".join(row) + " |", flush=True)

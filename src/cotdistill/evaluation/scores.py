"""From answers to numbers. Light: needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One example's outcome, which is a row of `predictions.jsonl` too."""

    id: str
    input: str
    gold: str
    prediction: str
    correct: bool
    confidence: float
    """probability of the generated sequence, end token included"""
    options: list[str] = field(default_factory=list)
    """the distinct labels to choose from; empty for an open label set, and where they were not scored"""
    option_probabilities: list[float] = field(default_factory=list)
    """of the options, in their order, with a sum of 1"""
    rationale: str | None = None
    """generated; None where none was asked for, or the method writes none alone"""
    teacher_rationale: str | None = None
    """stands beside `rationale`; empty where the teacher's output could not be read"""

    @property
    def row(self) -> dict[str, Any]:
        """As a row of a file: `Answer(**row)` gives it back."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def score(answers: Sequence[Answer]) -> dict[str, Any]:
    """Accuracy (a fraction; None without examples), number correct, n, and mean confidence."""
    n, correct = len(answers), sum(answer.correct for answer in answers)
    return {
        "accuracy": correct / n if n else None,
        "correct": correct,
        "n": n,
        "mean_confidence": sum(answer.confidence for answer in answers) / n if n else None,
    }

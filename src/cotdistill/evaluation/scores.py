"""From answers to numbers. Light: needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One example's outcome. confidence: probability of the generated sequence, end token included."""

    id: str
    input: str
    gold: str
    prediction: str
    correct: bool
    confidence: float


def score(answers: Sequence[Answer]) -> dict[str, Any]:
    """Accuracy (a fraction; None without examples), number correct, n, and mean confidence."""
    n, correct = len(answers), sum(answer.correct for answer in answers)
    return {
        "accuracy": correct / n if n else None,
        "correct": correct,
        "n": n,
        "mean_confidence": sum(answer.confidence for answer in answers) / n if n else None,
    }

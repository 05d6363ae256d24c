"""Count answers. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cotdistill.data.groups import count_groups
from cotdistill.runs.documents import Answer


def score(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return accuracy (a fraction; None without examples), number correct, n, groups, and mean confidence."""
    n, correct = len(answers), sum(answer.correct for answer in answers)
    return {
        "accuracy": correct / n if n else None,
        "correct": correct,
        "n": n,
        "groups": count_groups(answer.group for answer in answers),
        "mean_confidence": sum(answer.confidence for answer in answers) / n if n else None,
    }

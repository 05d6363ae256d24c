"""Count and measure a run's test answers, by two protocols. Needs no torch.

`strict` (the headline): the checkpoint was chosen on validation, and test is used once. `published`: the last
step, as both published codes report it (without their choice of a best step on test).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cotdistill.data import adapter
from cotdistill.evaluation import calibration, option_scores, rationale_quality
from cotdistill.evaluation.scores import score
from cotdistill.evaluation.variety import measure_variety
from cotdistill.runs.documents import Answer, Score, StrictScore, Training
from cotdistill.runs.grid import Run


def count_answers(
    training: Training, strict: Sequence[Answer], published: Sequence[Answer]
) -> tuple[StrictScore, Score]:
    """Return the scores of the chosen checkpoint's answers and of the last step's."""
    chosen = StrictScore(
        step=training.best_step, valid_accuracy=training.best_valid_accuracy, **_count(strict)
    )
    return chosen, Score(step=training.steps, **_count(published))


def measure_answers(
    run: Run, answers: Sequence[Answer], answer_kind: str, predictability: dict[str, Any]
) -> dict[str, Any]:
    """Return what is measured of the strict answers beside accuracy; what cannot be measured is absent.

    answers: with probabilities of their options, where they have some. predictability: what was measured of
    the checkpoint's states on test.
    """
    settings = run.experiment.evaluation
    measures: dict[str, Any] = {
        "answers": measure_variety(answers),
        "calibration": calibration.measure(answers, settings.bins, settings.option_score),
    }
    source = adapter(run.dataset.adapter)
    rationale = rationale_quality.measure(answers, answer_kind, source.stated_label, source.reads_open_labels)
    parts = {
        "options": option_scores.measure(answers), "rationale": rationale, "predictability": predictability,
    }  # fmt: skip
    return measures | {name: part for name, part in parts.items() if part}


def _count(answers: Sequence[Answer]) -> dict[str, Any]:
    result = score(answers)
    return {f"test_{key}": result[key] for key in ("accuracy", "correct", "n", "groups")} | {
        "mean_confidence": result["mean_confidence"]
    }

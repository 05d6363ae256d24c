"""Evaluate a trained run on test, by two protocols.

`strict` (the headline): the checkpoint was chosen on validation and test is looked at once.
`published`: the last step, as both published codes report it (without their choice of a best step on test).
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from cotdistill import methods, students
from cotdistill.config.grid import Run
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import subset
from cotdistill.errors import UserError
from cotdistill.evaluation.generate import Answer, Generator
from cotdistill.evaluation.scores import score
from cotdistill.files import read_json, write_json, write_jsonl


def evaluate(run: Run) -> dict[str, Any]:
    """Write `metrics.json` and `predictions.jsonl` of a trained run; return the metrics.

    Raises UserError when the run is not trained, or was trained with another config.
    """
    from cotdistill.training import devices

    trained = read_json(run.folder / "training.json")
    if trained["hash"] != run.hash:
        raise UserError(f"{run.folder}: trained with config {trained['hash']}, expected {run.hash}")
    started = time.perf_counter()
    devices.deterministic(run.student.compute.threads)
    with devices.held(devices.choose(run.training.device)) as device:
        prepared = Prepared(run.prepared)
        generator = Generator(run, prepared, methods.build(run.method.method, run.method.settings), device)
        model = students.load_saved(run.folder / "model").to(device)
        answers = generator.answers(model, "test")
        rationales = generator.rationales(model, "test") if run.experiment.evaluation.rationales else None
        last = answers
        if trained["best_step"] != trained["steps"]:
            last = generator.answers(students.load_saved(run.folder / "model_last").to(device), "test")
    sizes = prepared.manifest["sizes"]
    metrics = {
        "run": run.id,
        "hash": run.hash,
        "strict": {
            "step": trained["best_step"],
            "valid_accuracy": trained["best_valid_accuracy"],
            **_test(answers),
        },
        "published": {"step": trained["steps"], **_test(last)},
        "teacher": prepared.manifest["teacher"],
        "sizes": {**sizes, "train": len(subset(sizes["train"], run.fraction, run.seed, run.dataset.name))},
        "evaluation_wall_s": round(time.perf_counter() - started, 3),
    }
    write_jsonl(run.folder / "predictions.jsonl", _predictions(answers, rationales))
    write_json(run.folder / "metrics.json", metrics)
    return metrics


def _test(answers: list[Answer]) -> dict[str, Any]:
    result = score(answers)
    return {f"test_{key}": result[key] for key in ("accuracy", "correct", "n")} | {
        "mean_confidence": result["mean_confidence"]
    }


def _predictions(answers: list[Answer], rationales: list[str] | None) -> list[dict[str, Any]]:
    rows = [dataclasses.asdict(answer) for answer in answers]
    for row, rationale in zip(rows, rationales or [], strict=False):
        row["rationale"] = rationale
    return rows

"""Score a trained run on test, by two protocols. Light once the answers are there: needs no torch then.

`strict` (the headline): the checkpoint was chosen on validation and test is looked at once.
`published`: the last step, as both published codes report it (without their choice of a best step on test).
"""

from __future__ import annotations

from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import file_sha256, sweep
from cotdistill.data import adapter
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import subset
from cotdistill.evaluation import calibration, rationale_quality
from cotdistill.evaluation.scores import score
from cotdistill.runs import answers as stored
from cotdistill.runs import outputs
from cotdistill.runs.documents import Answer, Metrics, Score, StrictScore, write_answers
from cotdistill.runs.folder import LAST, STRICT
from cotdistill.runs.grid import Run
from cotdistill.runs.lease import Lease


def evaluate(run: Run) -> Metrics:
    """Write `metrics.json` and `predictions.jsonl` of a trained run; return the metrics.

    `metrics.json` also says what the files beside it must be, for `collect` to check.

    Answers that training (or an evaluation cut off) left are used if they are of the same checkpoints,
    settings and code; the rest are generated. Raises UserError when the run is not trained, was
    trained with another config or has a corrupt checkpoint.
    """
    trained = outputs.read(run)
    if trained.hash != run.hash:
        raise UserError(f"{run.folder}: trained with config {trained.hash}, expected {run.hash}")
    outputs.check(run)
    if not stored.complete(run):
        from cotdistill.jobs.answer import answer_test

        with Lease(run.files.states, until=lambda: stored.complete(run)) as lease:
            if lease.held:
                for folder in (run.folder, run.files.answers):
                    sweep(folder)
                answer_test(run)
    strict, last = stored.read(run, STRICT), stored.read(run, LAST)
    manifest = Prepared(run.prepared).manifest
    sizes = manifest["sizes"]
    write_answers(run.files.predictions, strict)
    kept = (run.files.config, run.files.history, run.files.environment)
    metrics = Metrics(
        run=run.id,
        hash=run.hash,
        strict=StrictScore(
            step=trained.best_step, valid_accuracy=trained.best_valid_accuracy, **_test(strict)
        ),
        published=Score(step=trained.steps, **_test(last)),
        measures=_measures(run, strict, manifest["answer"]),
        teacher=manifest["teacher"],
        sizes={**sizes, "train": len(subset(sizes["train"], run.fraction, run.seed, run.dataset.name))},
        evaluation_wall_s=stored.seconds(run),
        files={
            **{path.name: trained.files[path.name] for path in kept},
            run.files.predictions.name: file_sha256(run.files.predictions),
        },
    )
    metrics.write(run.files.metrics)
    outputs.forget(run)
    return metrics


def _measures(run: Run, answers: list[Answer], kind: str) -> dict[str, Any]:
    """What is measured of the strict answers beside accuracy; what cannot be measured is absent."""
    measures = {"calibration": calibration.measure(answers, run.experiment.evaluation.bins)}
    rationale = rationale_quality.measure(answers, kind, adapter(run.dataset.adapter).stated_label)
    information = stored.information(run, STRICT)
    return measures | {name: part for name, part in (("rationale", rationale), ("mi", information)) if part}


def _test(answers: list[Answer]) -> dict[str, Any]:
    result = score(answers)
    return {f"test_{key}": result[key] for key in ("accuracy", "correct", "n")} | {
        "mean_confidence": result["mean_confidence"]
    }

"""Score a trained run on test, by two protocols. Light once the answers are there: needs no torch then.

`strict` (the headline): the checkpoint was chosen on validation and test is looked at once.
`published`: the last step, as both published codes report it (without their choice of a best step on test).
"""

from __future__ import annotations

from typing import Any

from cotdistill.config.grid import Run, lease_folder
from cotdistill.data import adapter
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import subset
from cotdistill.errors import UserError
from cotdistill.evaluation import calibration, rationale_quality, stored
from cotdistill.evaluation.scores import Answer, score
from cotdistill.files import file_sha256, sealed, sweep, write_json, write_jsonl
from cotdistill.jobs.lease import Lease
from cotdistill.training import outputs


def evaluate(run: Run) -> dict[str, Any]:
    """Write `metrics.json` and `predictions.jsonl` of a trained run; return the metrics.

    `metrics.json` also says what the files beside it must be, for `collect` to check.

    Answers that training (or an evaluation cut off) left are used if they are of the same checkpoints,
    settings and code; the rest are generated. Raises UserError when the run is not trained, was
    trained with another config or has a corrupt checkpoint.
    """
    trained = outputs.read_marker(run)
    if trained["hash"] != run.hash:
        raise UserError(f"{run.folder}: trained with config {trained['hash']}, expected {run.hash}")
    outputs.check(run)
    if not stored.complete(run):
        from cotdistill.evaluation.answering import answer_test

        with Lease(lease_folder(run), until=lambda: stored.complete(run)) as lease:
            if lease.held:
                for folder in (run.folder, run.folder / "answers"):
                    sweep(folder)
                answer_test(run)
    strict, last = stored.read(run, stored.STRICT), stored.read(run, stored.LAST)
    manifest = Prepared(run.prepared).manifest
    sizes = manifest["sizes"]
    metrics: dict[str, Any] = {
        "run": run.id,
        "hash": run.hash,
        "strict": {
            "step": trained["best_step"],
            "valid_accuracy": trained["best_valid_accuracy"],
            **_test(strict),
        },
        "published": {"step": trained["steps"], **_test(last)},
        "measures": _measures(run, strict, manifest["answer"]),
        "teacher": manifest["teacher"],
        "sizes": {**sizes, "train": len(subset(sizes["train"], run.fraction, run.seed, run.dataset.name))},
        "evaluation_wall_s": stored.seconds(run),
    }
    predictions = run.folder / "predictions.jsonl"
    write_jsonl(predictions, (answer.row for answer in strict))
    metrics["predictions_sha256"] = file_sha256(predictions)
    kept = ("config.json", "history.jsonl", "environment.json")
    files = {name: trained["files"][name] for name in kept}
    write_json(run.folder / "metrics.json", sealed({**metrics, "files": files}))
    outputs.forget(run)
    return metrics


def _measures(run: Run, answers: list[Answer], kind: str) -> dict[str, Any]:
    """What is measured of the strict answers beside accuracy; what cannot be measured is absent."""
    measures = {"calibration": calibration.measure(answers, run.experiment.evaluation.bins)}
    rationale = rationale_quality.measure(answers, kind, adapter(run.dataset.adapter).stated_label)
    information = stored.information(run, stored.STRICT)
    return measures | {name: part for name, part in (("rationale", rationale), ("mi", information)) if part}


def _test(answers: list[Answer]) -> dict[str, Any]:
    result = score(answers)
    return {f"test_{key}": result[key] for key in ("accuracy", "correct", "n")} | {
        "mean_confidence": result["mean_confidence"]
    }

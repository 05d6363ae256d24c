"""Test answers of a run's two checkpoints, kept in `<run>/answers/` under a key of what made them.

Training answers test while its process is warm (loading torch and transformers takes longer than
answering does for a small student); evaluation takes those answers, or makes them where the code of
evaluation, the settings or the weights have changed since. The folder is a cache: no declared output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import (
    digest,
    file_sha256,
    read_json,
    read_sealed,
    sealed,
    write_json,
)
from cotdistill.common.fingerprint import fingerprint
from cotdistill.inference.journal import Journal
from cotdistill.runs import outputs
from cotdistill.runs.documents import Answer, read_answers, write_answers
from cotdistill.runs.folder import LAST, STRICT
from cotdistill.runs.grid import Run


def key(run: Run, checkpoint: str) -> str:
    """Digest of all that the answers of a checkpoint depend on."""
    weights = outputs.weights(run, checkpoint)
    code = fingerprint("jobs.answer", f"methods.{run.method.method}")
    return digest([run.hash, code, weights, run.experiment.evaluation.rationales])


def complete(run: Run) -> bool:
    """Whether both checkpoints' answers are there and current."""
    return all(current(run, checkpoint) for checkpoint in (STRICT, LAST))


def current(run: Run, checkpoint: str) -> bool:
    """Whether the answers of a checkpoint are there, readable and current."""
    try:
        about = read_sealed(_about(run, checkpoint), "answering again")
        rows = _rows(run, checkpoint)
        return bool(about["key"] == key(run, checkpoint) and about["sha256"] == file_sha256(rows))
    except (UserError, OSError, KeyError, TypeError):
        return False


def write(
    run: Run, checkpoint: str, answers: list[Answer], information: dict[str, Any], seconds: float
) -> None:
    """Keep the answers of a checkpoint, and its mutual information; the key is written last."""
    path = _rows(run, checkpoint)
    write_answers(path, answers)
    write_json(_about(run, checkpoint), sealed({
        "key": key(run, checkpoint), "seconds": round(seconds, 3), "sha256": file_sha256(path),
        "mutual_information": information,
    }))
    for part in path.parent.glob(f"{checkpoint}.*.partial"):
        part.unlink()


def journal(run: Run, checkpoint: str, task: str) -> Journal:
    """Where the batches of a checkpoint's answering are kept until all are done."""
    return Journal(run.files.answers / f"{checkpoint}.{task}.partial", key(run, checkpoint))


def read(run: Run, checkpoint: str) -> list[Answer]:
    """The answers of a checkpoint. Raises UserError when corrupt."""
    return read_answers(_rows(run, checkpoint))


def information(run: Run, checkpoint: str) -> dict[str, Any]:
    """What `mutual_information.measure` found of a checkpoint on test; {} if nothing was measured."""
    return dict(read_json(_about(run, checkpoint))["mutual_information"])


def seconds(run: Run) -> float:
    """Time that answering took, both checkpoints, in seconds."""
    return sum(float(read_json(_about(run, checkpoint))["seconds"]) for checkpoint in (STRICT, LAST))


def _rows(run: Run, checkpoint: str) -> Path:
    return run.files.answers / f"{checkpoint}.jsonl"


def _about(run: Run, checkpoint: str) -> Path:
    return run.files.answers / f"{checkpoint}.json"

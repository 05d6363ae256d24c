"""Keep the test answers of a run's two checkpoints in `<run>/answers/`, with a digest of their origin.

The training job answers test while its process is warm (loading torch and transformers takes longer than
answering does for a small student); evaluation takes those answers, or makes them where the code of
answering, the settings or the weights have changed since. The folder is a cache: no declared output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, hash_file, read_json, read_sealed, seal, write_json
from cotdistill.runs import outputs
from cotdistill.runs.code import compute_code
from cotdistill.runs.documents import Answer, read_answers, write_answers
from cotdistill.runs.folder import CHECKPOINTS, LAST, STRICT
from cotdistill.runs.grid import Run
from cotdistill.runs.journal import Journal


def compute_key(run: Run, checkpoint: str) -> str:
    """Return the digest of all that the answers of a checkpoint depend on."""
    weights = outputs.find_weights(run, checkpoint)
    code = compute_code("answer", run)
    evaluation = run.experiment.evaluation
    return digest([run.hash, code, weights, evaluation.rationales, evaluation.free_running])


def are_complete(run: Run) -> bool:
    """Whether both checkpoints' answers are there and current."""
    return all(are_current(run, checkpoint) for checkpoint in CHECKPOINTS)


def are_current(run: Run, checkpoint: str) -> bool:
    """Whether the answers of a checkpoint are there, unchanged, and made by today's code and settings."""
    about = _read_current(run, checkpoint)
    try:
        return about is not None and about["sha256"] == hash_file(_find_rows(run, checkpoint))
    except (OSError, KeyError):
        return False


def is_key_current(run: Run, checkpoint: str) -> bool:
    """Whether answers of a checkpoint by today's code and settings are there, their bytes not looked at.

    For planning, which asks for every run of a grid: to read all answers would take it seconds.
    """
    return _read_current(run, checkpoint) is not None


def list_lost(run: Run, is_current: Callable[[Run, str], bool] = is_key_current) -> list[str]:
    """Return the checkpoints of a trained run that must answer test anew, and whose weights were removed.

    Such a run is to be trained again. is_current: `are_current` looks at the bytes of the answers too.
    """
    if not any(outputs.is_removed(run, checkpoint) for checkpoint in CHECKPOINTS):
        return []
    stale = [checkpoint for checkpoint in CHECKPOINTS if not is_current(run, checkpoint)]
    try:
        same = outputs.find_weights(run, STRICT) == outputs.find_weights(run, LAST)
        lost = [checkpoint for checkpoint in stale if outputs.find_checkpoint(run, checkpoint) is None]
    except UserError:  # a corrupt `training.json`, which evaluating names
        return []
    # the answers of one are the other's where their weights are the same
    return [] if lost == [LAST] and same else lost


def list_lost_runs(runs: Iterable[Run]) -> list[Run]:
    """Return the trained runs that must be trained again to answer test anew."""
    return [run for run in outputs.list_trained(runs) if list_lost(run)]


def check_weights(run: Run) -> None:
    """Raise UserError where test must be answered anew and the weights for it were removed."""
    if lost := list_lost(run, are_current):
        raise UserError(
            f"{run.folder}: test is to be answered anew, and the weights of '{lost[0]}' were removed "
            f"(training.keep): `cotdistill reproduce` trains the run again, or remove {run.files.training}"
        )


def _read_current(run: Run, checkpoint: str) -> dict[str, Any] | None:
    """Return what is noted of a checkpoint's answers; None where they are absent, or of other code."""
    try:
        about = read_sealed(_find_about(run, checkpoint), "answering again")
        current = about["key"] == compute_key(run, checkpoint)
    except (UserError, OSError, KeyError, TypeError):
        return None
    return about if current and _find_rows(run, checkpoint).is_file() else None


def store(
    run: Run, checkpoint: str, answers: list[Answer], predictability: dict[str, Any], seconds: float
) -> None:
    """Keep the answers of a checkpoint, and its predictability; the key is written last."""
    path = _find_rows(run, checkpoint)
    write_answers(path, answers)
    write_json(_find_about(run, checkpoint), seal({
        "key": compute_key(run, checkpoint), "seconds": round(seconds, 3), "sha256": hash_file(path),
        "predictability": predictability,
    }))  # fmt: skip
    for part in path.parent.glob(f"{checkpoint}.*.partial"):
        part.unlink()


def open_journal(run: Run, checkpoint: str, task: str) -> Journal:
    """Open the file that keeps the batches of a checkpoint's answering until all are done."""
    return Journal(run.files.answers / f"{checkpoint}.{task}.partial", compute_key(run, checkpoint))


def load(run: Run, checkpoint: str) -> list[Answer]:
    """Return the answers of a checkpoint. Raises UserError when corrupt."""
    return read_answers(_find_rows(run, checkpoint))


def load_predictability(run: Run, checkpoint: str) -> dict[str, Any]:
    """Return the predictability that was measured of a checkpoint on test; {} where none was asked for."""
    return dict(read_json(_find_about(run, checkpoint))["predictability"])


def sum_seconds(run: Run) -> float:
    """Return the time that answering took, both checkpoints, in seconds."""
    return sum(float(read_json(_find_about(run, checkpoint))["seconds"]) for checkpoint in CHECKPOINTS)


def _find_rows(run: Run, checkpoint: str) -> Path:
    return run.files.answers / f"{checkpoint}.jsonl"


def _find_about(run: Run, checkpoint: str) -> Path:
    return run.files.answers / f"{checkpoint}.json"

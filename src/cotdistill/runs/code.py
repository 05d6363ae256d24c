"""Name the code that each stage of a run depends on: an edit of it makes the stage run again.

A stage's modules are those that compute its numbers. Those that order a job's steps (`jobs`) and keep its
folder (`runs`, but for the training state) are left out: they decide when something is computed, not what.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from cotdistill.common.files import digest
from cotdistill.common.fingerprint import fingerprint
from cotdistill.config.models import DatasetEntry, StudentEntry
from cotdistill.data.prepared import Prepared
from cotdistill.methods import build
from cotdistill.runs.grid import Run
from cotdistill.students.engines import list_possible, name_module

Stage = Literal["train", "answer", "evaluate"]


def list_modules(stage: Stage, run: Run, engines: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return the entry modules of a stage, below the package; what they import counts too.

    engines: those that compute, by default all that the run's settings allow.
    """
    if engines is None:
        engines = list_possible(run.training.engine, run.training.device)
    method = f"methods.{run.method.method}"
    learning, writing, scoring = (
        [name_module(engine, part) for engine in engines] for part in ("learning", "writing", "scoring")
    )
    if stage == "train":
        # validation generates answers, which choose the checkpoint
        return ("training.trainer", "runs.state", "inference.generate", *learning, *writing, method)
    if stage == "answer":
        measured = ("evaluation.predictability.measure", *learning)
        return ("inference.generate", "inference.options", *measured, *writing, *scoring, method)
    adapter = f"data.adapters.{run.dataset.adapter}"  # reads the label that a rationale states
    return ("evaluation.protocols", adapter, *list_modules("answer", run, engines))


def compute_code(stage: Stage, run: Run, engines: tuple[str, ...] | None = None) -> str:
    """Return the fingerprint of a stage's code for a run. engines: see `list_modules`."""
    return fingerprint(*list_modules(stage, run, engines))


def compute_origin(run: Run, engine: str) -> str:
    """Return the digest of what a run's numbers depend on beside its config.

    That is the code of training by this engine, the data, and a pretrained student's initial weights.
    """
    return digest([compute_code("train", run, (engine,)), Prepared(run.prepared).digest])


def digest_preparation_settings(dataset: DatasetEntry, student: StudentEntry) -> str:
    """Return the digest of the settings that the prepared data of a pair depend on."""
    keep = {"adapter", "path", "answer", "split", "pretrained", "revision", "scratch"}
    return digest([entry.model_dump(include=keep) for entry in (dataset, student)])


def digest_warning_settings(runs: Iterable[Run]) -> str:
    """Return the digest of the settings that warnings on prepared data depend on, but not the data.

    runs: of one pair; those that differ in other axes than method and labels add nothing.
    """
    seen = set()
    for run in runs:
        training, evaluation = run.training, run.experiment.evaluation
        limits = (training.max_input_tokens, training.max_target_tokens, evaluation.max_new_tokens)
        tasks = build(run.method.method, run.method.settings).tasks
        seen |= {(*limits, run.labels, task.prefix, *task.target) for task in tasks}
    return digest(sorted(seen))


def compute_preparation_code(dataset: DatasetEntry, student: StudentEntry) -> str:
    """Return the fingerprint of the code that the prepared data of a pair depend on."""
    kind = "scratch" if student.scratch is not None else "pretrained"
    return fingerprint("data.prepared", "data", f"data.adapters.{dataset.adapter}", f"students.{kind}")

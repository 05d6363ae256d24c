"""Tell how far a grid is, from the run folders alone: while it runs, and after whatever ended it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json
from cotdistill.common.text_tables import plain_table
from cotdistill.config.models import Experiment
from cotdistill.jobs.manners import read_failure
from cotdistill.runs.folder import RunFiles
from cotdistill.runs.grid import Run, expand
from cotdistill.runs.lease import Holder, find_holder, is_alive
from cotdistill.runs.outputs import was_written_under

TAIL = 4096
"""bytes read from the end of a history: its last line is far shorter"""
STATES = ("done", "trained", "running", "failed", "stopped", "waiting")
"""`trained`: not yet evaluated; `stopped`: nobody works on it, it has a state to go on from"""


@dataclass(frozen=True)
class Status:
    """One run: its state, steps done, seconds of work so far, who works on it, what it failed of."""

    run: Run
    state: str
    step: int
    seconds: float = 0.0
    gpus: int = 0
    where: str = ""
    error: str = ""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.run.training.steps


def list_statuses(experiment: Experiment) -> list[Status]:
    """Return the status of every run of the grid."""
    return [_read_status(run) for run in expand(experiment)]


def _read_status(run: Run) -> Status:
    for state, path in (("done", run.files.metrics), ("trained", run.files.training)):
        if was_written_under(run, path):
            spent = _read_object(run.files.environment)
            gpus = run.training.gpus if spent.get("device") == "cuda" else 0
            seconds = _read_number(spent.get("wall_s"))
            error = (read_failure(run) if state == "trained" else None) or ""
            return Status(run, "failed" if error else state, run.training.steps, seconds, gpus, error=error)
    history, found = RunFiles(run.state).history, find_holder(run.files.states)
    step = _read_last_step(history) if history.is_file() else 0
    if found and is_alive(found):
        return _describe_running(run, found, step)
    seconds, gpus = _read_spent(run)
    if failure := read_failure(run):
        return Status(run, "failed", step, seconds, gpus, error=failure)
    return Status(run, "stopped" if history.is_file() else "waiting", step, seconds, gpus)


def _describe_running(run: Run, found: Holder, step: int) -> Status:
    gpus = run.training.gpus if found.about.get("device") == "cuda" else 0
    step = max(step, int(_read_number(found.about.get("step"))))
    return Status(run, "running", step, _read_number(found.about.get("seconds")), gpus, where=str(found))


def _read_spent(run: Run) -> tuple[float, int]:
    """Return seconds and GPUs of the newest saved state of a run that nobody works on."""
    newest = max(run.state.glob("step-*/state.json"), key=os.path.getmtime, default=None)
    saved = _read_object(newest) if newest else {}
    progress = saved.get("progress")
    seconds = _read_number(progress.get("seconds")) if isinstance(progress, dict) else 0.0
    return seconds, run.training.gpus if saved.get("device") == "cuda" else 0


def _read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object, empty where there is none: Snakemake may be deleting it at this moment."""
    try:
        value = read_json(file)
    except UserError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def _read_last_step(history: Path) -> int:
    try:
        with open(history, "rb") as handle:
            handle.seek(max(0, os.path.getsize(history) - TAIL))
            lines = handle.read().decode(errors="replace").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue  # the last line may be half-written at this moment
    return 0


def format_line(
    found: list[Status], elapsed: float, first_steps: int, stages: Sequence[str] = ()
) -> str:
    """Return one line for a person: what is done, what runs, how long is left.

    elapsed: seconds since watching began, when `first_steps` training steps had been done.
    stages: what is done now beside training, such as "draw figures".
    """
    counts = Counter(status.state for status in found)
    running = [status for status in found if status.state == "running"]
    steps, total = sum(s.step for s in found), sum(s.steps for s in found)
    text = f"[{elapsed / 60:4.1f} min] {counts['done']}/{len(found)} runs done"
    text += "".join(f", {counts[state]} {state}" for state in ("trained", "failed") if counts[state])
    if running:
        names = [f"{s.run.id} {100 * s.step // s.steps}%" for s in running[:3]]
        text += f", running: {', '.join(names)}" + (" ..." if len(running) > 3 else "")
    if stages:
        text += f", now: {', '.join(stages[:2])}" + (" ..." if len(stages) > 2 else "")
    if steps > first_steps and steps < total:
        left = elapsed * (total - steps) / (steps - first_steps)
        text += f", about {max(left / 60, 0.1):.1f} min of training left"
    return text


def format_counts(found: list[Status]) -> str:
    """Return the grid in one line: how many runs are in which state, hours used."""
    counts = Counter(status.state for status in found)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    gpu = sum(s.seconds * s.gpus for s in found) / 3600
    cpu = sum(s.seconds for s in found if not s.gpus) / 3600
    head = f"{found[0].run.experiment.experiment}: {len(found)} runs: {summary}; {gpu:.2f} GPU hours used"
    return head + (f", {cpu:.2f} hours of training without a GPU" if cpu else "")


def format_table(found: list[Status], everything: bool = False) -> str:
    """Return the grid for a person: counts, hours used, a line a run that is neither done nor waiting."""
    head = format_counts(found)
    shown = [s for s in found if everything or s.state not in ("done", "waiting")]
    shown.sort(key=lambda status: -STATES.index(status.state) if everything else STATES.index(status.state))
    rows = [[s.state, s.run.id, f"{s.step}/{s.steps}", *_format_pace(s), _format_remark(s)] for s in shown]
    return f"{head}\n{plain_table(rows)}" if rows else head


def _format_pace(status: Status) -> tuple[str, str]:
    """Return speed and time left of a running run, as text."""
    if status.state != "running" or not (status.seconds and status.step):
        return "", ""
    seconds = status.seconds / status.step
    left = int(seconds * (status.steps - status.step))
    clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    return (f"{1 / seconds:.1f} steps/s" if seconds < 1 else f"{seconds:.1f} s/step"), clock


def _format_remark(status: Status) -> str:
    if status.state == "stopped":
        return "goes on from its last saved state when started again"
    return status.error or status.where

"""How far a grid is, read from the run folders alone."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cotdistill.config.grid import Run, expand, state_folder
from cotdistill.config.models import Experiment
from cotdistill.errors import UserError
from cotdistill.files import read_json

TAIL = 4096
"""bytes read from the end of a history: its last line is far shorter"""


@dataclass(frozen=True)
class Status:
    """One run: `waiting`, `training`, `trained` (not yet evaluated) or `done`; steps done of all."""

    run: Run
    state: str
    step: int

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.run.training.steps


def statuses(experiment: Experiment) -> list[Status]:
    """The status of every run of the grid."""
    return [_status(run) for run in expand(experiment)]


def _status(run: Run) -> Status:
    for state, name in (("done", "metrics.json"), ("trained", "training.json")):
        if _is_of(run, run.folder / name):
            return Status(run, state, run.training.steps)
    history = state_folder(run) / "history.jsonl"
    if history.is_file():
        return Status(run, "training", _last_step(history))
    return Status(run, "waiting", 0)


def _is_of(run: Run, file: Path) -> bool:
    """Whether `file` was written under this run's config: what an earlier config left is to be redone."""
    if not file.is_file():
        return False
    try:
        return read_json(file)["hash"] == run.hash
    except (UserError, KeyError, TypeError):
        return False  # Snakemake may be deleting it at this moment


def _last_step(history: Path) -> int:
    with open(history, "rb") as handle:
        handle.seek(max(0, os.path.getsize(history) - TAIL))
        lines = handle.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue  # the last line may be half-written at this moment
    return 0


def line(found: list[Status], elapsed: float, first_steps: int) -> str:
    """One line for a person: what is done, what runs, how long is left.

    elapsed: seconds since watching began, when `first_steps` training steps had been done.
    """
    counts = Counter(status.state for status in found)
    running = [status for status in found if status.state == "training"]
    steps, total = sum(s.step for s in found), sum(s.steps for s in found)
    text = f"[{elapsed / 60:4.1f} min] {counts['done']}/{len(found)} runs done"
    if counts["trained"]:
        text += f", {counts['trained']} trained"
    if running:
        names = [f"{s.run.id} {100 * s.step // s.steps}%" for s in running[:3]]
        text += f", running: {', '.join(names)}" + (" ..." if len(running) > 3 else "")
    if steps > first_steps and steps < total:
        left = elapsed * (total - steps) / (steps - first_steps)
        text += f", about {max(left / 60, 0.1):.1f} min of training left"
    return text

"""Mark runs of the store whose folder is gone, so that nobody takes them for results that still hold."""

from __future__ import annotations

from datetime import UTC, datetime

from mlflow.tracking import MlflowClient

from cotdistill.config.models import Experiment
from cotdistill.runs.folder import RunFiles
from cotdistill.tracking.finished import FinishedRun, get_cell
from cotdistill.tracking.store import (
    CELL,
    DIGEST,
    FOLDER,
    GONE,
    NOTE,
    PARENT,
    RUN,
    StoredRun,
    StoredRuns,
    keep_tags,
)

WARNING = "**Gone**: its folder holds no finished run any more. What it was:\n\n"


def mark_gone(
    client: MlflowClient, experiment: Experiment, finished: list[FinishedRun], stored: StoredRuns
) -> int:
    """Mark what is gone, and take the mark from what came back; return how many runs are gone.

    A run is gone when neither the results folder nor the folder that it was tracked from holds its
    `metrics.json`: two results folders may share an experiment's name on one server. A cell is gone
    with all its runs. Live mirrors and runs that were cut short are never marked.
    """
    here = {item.run.id for item in finished}
    complete = {key: [run for run in runs if DIGEST in run.tags] for key, runs in stored.items()}
    cells_that_stand = {get_cell(run_id) for run_id in here}
    lost = 0
    for (tag, name), runs in complete.items():
        if tag != RUN or name in here:
            continue
        for run in runs:
            if _has_folder(experiment, name, run):
                cells_that_stand.add(get_cell(name))
                _set_mark(client, run, False)
            else:
                lost += 1
                _set_mark(client, run, True)
            # the parent may have been written anew without it: it stays below its cell
            if parents := stored.get((CELL, get_cell(name))):
                keep_tags(client, run, {PARENT: parents[0].id})
    for (tag, name), runs in complete.items():
        if tag == CELL:
            for run in runs:
                _set_mark(client, run, name not in cells_that_stand)
    return lost


def _has_folder(experiment: Experiment, run_id: str, run: StoredRun) -> bool:
    """Return whether a stored run's folder, here or where it was tracked from, holds a finished run."""
    folders = [str(experiment.folder / "runs" / run_id)]
    if FOLDER in run.tags:
        folders.append(run.tags[FOLDER])
    return any(RunFiles(folder).metrics.is_file() for folder in folders)


def _set_mark(client: MlflowClient, run: StoredRun, is_gone: bool) -> None:
    tags = run.tags
    if is_gone == (GONE in tags):
        return
    note = tags.get(NOTE, "").removeprefix(WARNING)
    if is_gone:
        keep_tags(client, run, {GONE: datetime.now(UTC).date().isoformat(), NOTE: WARNING + note})
    else:
        keep_tags(client, run, {NOTE: note})
        client.delete_tag(run.id, GONE)

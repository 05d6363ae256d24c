"""Runs of the store whose folder is gone: marked, so that nobody takes them for results that stand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mlflow.tracking import MlflowClient

from cotdistill.config.models import Experiment
from cotdistill.tracking.finished import Finished
from cotdistill.tracking.store import CELL, DIGEST, FOLDER, GONE, NOTE, PARENT, RUN, Known, Stored, keep_tags

WARNING = "**Gone**: its folder holds no finished run any more. What it was:\n\n"


def mark(client: MlflowClient, experiment: Experiment, finished: list[Finished], stored: Stored) -> int:
    """Mark what is gone, and take the mark from what came back; returns how many runs are gone.

    A run is gone when neither the results folder nor the folder that it was tracked from holds its
    `metrics.json`: two results folders may share an experiment's name on one server. A cell is gone
    with all its runs. Live mirrors and runs that were cut short are none of this.
    """
    here = {item.run.id for item in finished}
    lost, standing = 0, {run_id.rsplit("/", 1)[0] for run_id in here}
    for (tag, name), runs in stored.items():
        if tag != RUN or name in here:
            continue
        for run in (run for run in runs if DIGEST in run.tags):
            away = not _there(experiment, name, run)
            lost += away
            cell = name.rsplit("/", 1)[0]
            standing |= set() if away else {cell}
            _mark(client, run, away)
            # the parent may have been written anew without it: it stays below its cell
            if parents := stored.get((CELL, cell)):
                keep_tags(client, run, {PARENT: parents[0].id})
    for (tag, name), runs in stored.items():
        if tag == CELL:
            for run in (run for run in runs if DIGEST in run.tags):
                _mark(client, run, name not in standing)
    return lost


def _there(experiment: Experiment, run_id: str, run: Known) -> bool:
    folders = [str(Path(experiment.results, experiment.experiment, "runs", run_id))]
    if FOLDER in run.tags:
        folders.append(run.tags[FOLDER])
    return any(Path(folder, "metrics.json").is_file() for folder in folders)


def _mark(client: MlflowClient, run: Known, away: bool) -> None:
    tags = run.tags
    if away == (GONE in tags):
        return
    note = tags.get(NOTE, "").removeprefix(WARNING)
    if away:
        keep_tags(client, run, {GONE: datetime.now(UTC).date().isoformat(), NOTE: WARNING + note})
    else:
        keep_tags(client, run, {NOTE: note})
        client.delete_tag(run.id, GONE)

"""Track an experiment, and read what its store then holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.collect import collect
from cotdistill.tracking import track as track_tables

Made = Callable[..., Experiment]
Change = Callable[[Run, Path, str, Any], None]


def track(experiment: Experiment, **options: Any) -> dict[str, Any]:
    """Collect what is finished, and track it."""
    collect(experiment, allow_missing=True)
    return track_tables(experiment, **options)


def stored(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parents by cell, children by run id) of the store."""
    client = MlflowClient(get_uri(experiment))
    found = client.get_experiment_by_name(experiment.experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    parents = {run.data.tags["cotdistill.cell"]: run for run in runs if "cotdistill.cell" in run.data.tags}
    children = {run.data.tags["cotdistill.run"]: run for run in runs if "cotdistill.run" in run.data.tags}
    assert len(runs) == len(parents) + len(children), "a run stands twice"
    return parents, children


def whole(experiment: Experiment) -> None:
    parents, children = stored(experiment)
    assert set(children) == {run.id for run in expand(experiment)} and len(parents) == 2
    for run_id, child in children.items():
        assert child.data.tags["mlflow.parentRunId"] == parents[run_id.rsplit("/", 1)[0]].info.run_id
        assert child.info.status == "FINISHED" and child.data.tags["cotdistill.digest"]

"""The grid as MLflow runs: one parent a cell, one child a seed, written so that a repeat adds nothing.

A child carries the digest of the files it was made from, set as the very last thing: a run without
a digest was cut short, one with another digest is of older content, and both are written anew.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.entities import Run as StoredRun
from mlflow.tracking import MlflowClient

from cotdistill.config.grid import expand
from cotdistill.config.models import Experiment
from cotdistill.files import digest
from cotdistill.results.statistics import t_interval
from cotdistill.tracking.finished import ARTIFACTS, FINAL, LAYOUT, Finished, cell_of, metrics_of, read
from cotdistill.tracking.store import (
    CELL,
    DIGEST,
    PARENT,
    RUN,
    Busy,
    connect,
    experiment_id,
    following,
    stored_runs,
    sweep,
    uri_of,
    writing,
)

METRICS_A_BATCH, OTHERS_A_BATCH = 1000, 100
OUTCOMES = ("added", "updated", "unchanged")


def track(experiment: Experiment, timeout: float = 600.0) -> dict[str, Any]:
    """Bring the MLflow store up to date with the finished runs of the grid.

    The store is `experiment.tracking.uri`, or SQLite at `<results>/mlflow.db` with artifacts below
    `<results>/mlartifacts`. Returns {"uri", "experiment", "added", "updated", "unchanged",
    "missing"}, the last four counting runs of the grid (children). Doing it twice adds nothing; a
    call that was killed is completed by the next; runs that left the grid stay in the store. A run
    that is written anew replaces the old one, which MLflow keeps as deleted until `mlflow gc`.

    Raises UserError when the store cannot be used, when another writer holds it for `timeout`
    seconds, or when a run folder is corrupt or of another config.
    """
    with writing(experiment, timeout):
        # read once nobody else writes: a view from before another's writing would undo it
        finished = [item for item in map(read, expand(experiment)) if item is not None]
        client = connect(uri_of(experiment))
        target = experiment_id(client, experiment)
        outcomes = write(client, target, finished)
        _tidy(client, target, experiment)
    return report(experiment, outcomes)


def report(experiment: Experiment, outcomes: dict[str, str]) -> dict[str, Any]:
    """What `track` returns, from the outcome (added, updated, unchanged) of each finished run's id."""
    counts = Counter(outcomes.values())
    return {
        "uri": uri_of(experiment),
        "experiment": experiment.experiment,
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "missing": len(expand(experiment)) - len(outcomes),
    }


def write(client: MlflowClient, target: str, finished: list[Finished]) -> dict[str, str]:
    """Write the finished runs into the MLflow experiment `target`; the outcome of each by run id."""
    stored = stored_runs(client, target)
    outcomes: dict[str, str] = {}
    cells: dict[str, list[Finished]] = {}
    for item in finished:
        cells.setdefault(cell_of(item.run), []).append(item)
    for cell, items in cells.items():
        content = digest({"layout": LAYOUT, "children": [item.digest for item in items]})
        current = _current(client, stored.get((CELL, cell), []), content)
        parent = current or _start_parent(client, target, cell, items)
        for item in items:
            old = stored.get((RUN, item.run.id), [])
            kept = _current(client, old, item.digest)
            if kept is None:
                _write_child(client, target, parent, item)
                complete = any(DIGEST in run.data.tags for run in old)
                outcomes[item.run.id] = "updated" if complete else "added"
                continue
            outcomes[item.run.id] = "unchanged"
            if kept.data.tags.get(PARENT) != parent.info.run_id:
                client.set_tag(kept.info.run_id, PARENT, parent.info.run_id)
        if current is None:
            _finish(client, parent, max(item.end for item in items), content)
    return outcomes


def log(client: MlflowClient, run_id: str, metrics: list[Metric], config: dict[str, Any]) -> None:
    """Log metrics and a nested config, in batches that every server takes."""
    params = [Param(key, value) for key, value in _flat(config)]
    for start in range(0, len(params), OTHERS_A_BATCH):
        client.log_batch(run_id, params=params[start : start + OTHERS_A_BATCH], synchronous=True)
    for start in range(0, len(metrics), METRICS_A_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_BATCH], synchronous=True)


def _tidy(client: MlflowClient, target: str, experiment: Experiment) -> None:
    """Delete what is incomplete; mirrors of runs in training only where nobody follows them any more."""
    if sweep(client, target, mirrors=False):
        # without a follower a mirror would stand as running for good
        with contextlib.suppress(Busy), following(experiment):
            sweep(client, target, mirrors=True)


def _current(client: MlflowClient, stored: list[StoredRun], content: str) -> StoredRun | None:
    """The stored run with this content; every other one (older, cut short, double) is deleted."""
    kept = next((run for run in stored if run.data.tags.get(DIGEST) == content), None)
    for run in stored:
        if run is not kept:
            client.delete_run(run.info.run_id)
    return kept


def _start_parent(client: MlflowClient, target: str, cell: str, items: list[Finished]) -> StoredRun:
    """Create the parent of a cell: settings that its seeds share, and means over them."""
    tags = {CELL: cell, "cotdistill.seeds": ", ".join(str(item.run.seed) for item in items)}
    tags |= items[0].tags
    start = min(item.start for item in items)
    parent = client.create_run(target, start_time=start, tags=tags, run_name=cell)
    end = max(item.end for item in items)
    metrics = []
    for column in ("accuracy", "accuracy_published", "valid_accuracy", "wall_s"):
        values = [item.row[column] for item in items if not math.isnan(item.row[column])]
        interval = t_interval(values)
        for part in ("mean", "sd", "low", "high", "n"):
            value = float(getattr(interval, part))
            if not math.isnan(value):
                metrics.append(Metric(f"{FINAL[column]}_{part}", value, end, 0))
    config = {key: value for key, value in items[0].run.config.items() if key != "seed"}
    log(client, parent.info.run_id, metrics, config)
    return parent


def _write_child(client: MlflowClient, target: str, parent: StoredRun, item: Finished) -> None:
    tags = {RUN: item.run.id, PARENT: parent.info.run_id, "config_hash": item.run.hash}
    tags |= item.tags
    run = client.create_run(target, start_time=item.start, tags=tags, run_name=item.run.id)
    log(client, run.info.run_id, metrics_of(item), item.run.config)
    for artifact in ARTIFACTS:
        client.log_artifact(run.info.run_id, str(item.run.folder / artifact))
    _finish(client, run, item.end, item.digest)


def _finish(client: MlflowClient, run: StoredRun, end: int, content: str) -> None:
    client.set_terminated(run.info.run_id, "FINISHED", end_time=end)
    client.set_tag(run.info.run_id, DIGEST, content)


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `outer.inner` keys with text values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)

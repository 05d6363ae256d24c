"""The grid as MLflow runs: one parent a cell, one child a seed, written so that a repeat adds nothing.

A child carries the digest of the files it was made from, set as the very last thing: a run without
a digest was cut short, one with another digest is of older content, and both are written anew. What
stands around a run and may change without it (its parent, its folder, figures drawn later) is no part
of the digest and is brought up to date in place.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from cotdistill.common.files import digest, file_sha256
from cotdistill.config.models import Experiment
from cotdistill.runs.grid import expand
from cotdistill.tracking import gone, notes
from cotdistill.tracking.finished import (
    ARTIFACTS,
    LAYOUT,
    Finished,
    cell_of,
    inputs_of,
    metrics_of,
    read,
)
from cotdistill.tracking.store import (
    CELL,
    DIGEST,
    FOLDER,
    GONE,
    NOTE,
    NOTE_DIGEST,
    PARENT,
    RUN,
    Busy,
    Known,
    Stored,
    connect,
    experiment_id,
    following,
    keep_tags,
    stored_runs,
    sweep,
    uri_of,
    writing,
)

ENTITIES_A_BATCH, PARAMS_A_BATCH = 1000, 100
FIGURES = "cotdistill.report.figures"
"""tag with the digest of the figures that a parent has"""
OUTCOMES = ("added", "updated", "unchanged")


def track(experiment: Experiment, timeout: float = 600.0) -> dict[str, Any]:
    """Bring the MLflow store up to date with the finished runs of the grid.

    The store is `experiment.tracking.uri`, or SQLite at `<results>/mlflow.db` with artifacts below
    `<results>/mlartifacts`. Returns {"uri", "experiment", "added", "updated", "unchanged",
    "gone", "missing"}: "gone" counts runs of the store whose folder is no more, the others count runs
    of the grid. Doing it twice adds nothing; a call that was killed is completed by the next; runs that
    left the grid stay in the store, and are marked once their folder is gone. A run that is written
    anew replaces the old one, which MLflow keeps as deleted until `mlflow gc`.

    Raises UserError when the store cannot be used, when another writer holds it for `timeout`
    seconds, or when a run folder is corrupt or of another config.
    """
    with writing(experiment, timeout):
        # read once nobody else writes: a view from before another's writing would undo it
        finished = [item for item in map(read, expand(experiment)) if item is not None]
        client = connect(uri_of(experiment))
        target = experiment_id(client, experiment)
        stored = stored_runs(client, target)
        outcomes = write(client, target, experiment, finished, stored)
        lost = gone.mark(client, experiment, finished, stored)
        _tidy(client, stored, experiment)
    return report(experiment, outcomes, lost)


def report(experiment: Experiment, outcomes: dict[str, str], lost: int) -> dict[str, Any]:
    """What `track` returns, from the outcome (added, updated, unchanged) of each finished run's id."""
    counts = Counter(outcomes.values())
    return {
        "uri": uri_of(experiment),
        "experiment": experiment.experiment,
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "gone": lost,
        "missing": len(expand(experiment)) - len(outcomes),
    }


def write(
    client: MlflowClient, target: str, experiment: Experiment, finished: list[Finished], stored: Stored
) -> dict[str, str]:
    """Write the finished runs into the MLflow experiment `target`; the outcome of each by run id.

    stored: what the store holds; it is brought up to date.
    """
    known = {run.tags.get(DIGEST) for runs in stored.values() for run in runs}
    for item in finished:
        if item.digest not in known:
            item.check()  # a fault is found before anything is written
    figures = _figures(experiment)
    outcomes: dict[str, str] = {}
    cells: dict[str, list[Finished]] = {}
    for item in finished:
        cells.setdefault(cell_of(item.run), []).append(item)
    for cell, items in cells.items():
        content = digest({"layout": LAYOUT, "children": [item.digest for item in items]})
        current = _current(client, stored, (CELL, cell), content)
        parent = current or _start_parent(client, target, cell, items)
        stored[CELL, cell] = [parent]
        for item in items:
            outcomes[item.run.id] = _child(client, target, parent, item, stored)
        _surround_parent(client, parent, items, figures)
        if current is None:
            _finish(client, parent, max(item.end for item in items), content)
    return outcomes


def log(client: MlflowClient, run_id: str, metrics: list[Metric], config: dict[str, Any]) -> None:
    """Log metrics and a nested config, in batches that every server takes."""
    params = [Param(key, value) for key, value in _flat(config)]
    while params or metrics:
        some, params = params[:PARAMS_A_BATCH], params[PARAMS_A_BATCH:]
        room = ENTITIES_A_BATCH - len(some)
        client.log_batch(run_id, metrics=metrics[:room], params=some, synchronous=True)
        metrics = metrics[room:]


def _tidy(client: MlflowClient, stored: Stored, experiment: Experiment) -> None:
    """Delete what is incomplete; mirrors of runs in training only where nobody follows them any more."""
    if sweep(client, stored, mirrors=False):
        # without a follower a mirror would stand as running for good
        with contextlib.suppress(Busy), following(experiment):
            sweep(client, stored, mirrors=True)


def _current(client: MlflowClient, stored: Stored, key: tuple[str, str], content: str) -> Known | None:
    """The stored run with this content; every other one (older, cut short, double) is deleted."""
    runs = stored.get(key, [])
    kept = next((run for run in runs if run.tags.get(DIGEST) == content), None)
    for run in runs:
        if run is not kept:
            client.delete_run(run.id)
    stored[key] = [kept] if kept else []
    return kept


def _start_parent(client: MlflowClient, target: str, cell: str, items: list[Finished]) -> Known:
    """Create the parent of a cell: settings that its seeds share, and means over them."""
    tags = {CELL: cell, "cotdistill.common.seeds": ", ".join(str(item.run.seed) for item in items)}
    tags |= items[0].tags
    start = min(item.start for item in items)
    made = client.create_run(target, start_time=start, tags=tags, run_name=cell)
    parent = Known(made.info.run_id, tags)
    end = max(item.end for item in items)
    metrics = []
    for name, interval in notes.intervals_of(items).items():
        for part in ("mean", "sd", "low", "high", "n"):
            value = float(getattr(interval, part))
            if not math.isnan(value):
                metrics.append(Metric(f"{name}_{part}", value, end, 0))
    config = {key: value for key, value in items[0].run.config.items() if key != "seed"}
    log(client, parent.id, metrics, config)
    return parent


def _surround_parent(
    client: MlflowClient, parent: Known, items: list[Finished], figures: dict[Path, str]
) -> None:
    """Bring up to date what stands around a parent: the figures, its folder, its description."""
    drawn = digest({file.name: found for file, found in figures.items()})
    around = {FOLDER: str(items[0].run.folder.parent.absolute()), FIGURES: drawn}
    if _stands(parent, around):
        return
    if parent.tags.get(FIGURES) != drawn:
        for file in figures:
            client.log_artifact(parent.id, str(file), "figures")
    around[NOTE] = notes.of_parent(items, [file.name for file in figures])
    _surround(client, parent, around)


def _child(client: MlflowClient, target: str, parent: Known, item: Finished, stored: Stored) -> str:
    """Write a run below its parent, or bring up to date what stands around it; the outcome."""
    key = RUN, item.run.id
    complete = any(DIGEST in run.tags for run in stored.get(key, []))
    kept = _current(client, stored, key, item.digest)
    around = {PARENT: parent.id, FOLDER: str(item.run.folder.absolute())}
    if kept and _stands(kept, around):
        return "unchanged"
    around[NOTE] = notes.of_child(item, f"#/experiments/{target}/runs/{parent.id}/artifacts")
    if kept:
        _surround(client, kept, around)
        return "unchanged"
    stored[key] = [_write_child(client, target, around, item)]
    return "updated" if complete else "added"


def _stands(run: Known, around: dict[str, str]) -> bool:
    return around.items() <= run.tags.items() and GONE not in run.tags


def _surround(client: MlflowClient, run: Known, around: dict[str, str]) -> None:
    keep_tags(client, run, around)
    if GONE in run.tags:
        client.delete_tag(run.id, GONE)
        del run.tags[GONE]


def _write_child(client: MlflowClient, target: str, around: dict[str, str], item: Finished) -> Known:
    tags = {RUN: item.run.id, "config_hash": item.run.hash, **notes.LOGGED, **item.tags}
    tags |= {**around, NOTE_DIGEST: digest(around[NOTE])}
    made = client.create_run(target, start_time=item.start, tags=tags, run_name=item.run.id)
    run = Known(made.info.run_id, tags)
    # artifacts first: to place them MLflow reads the run, which takes longer once it has metrics
    for artifact in ARTIFACTS:
        client.log_artifact(run.id, str(item.run.folder / artifact))
    client.log_dict(run.id, notes.sample(item.run.files.predictions), notes.SAMPLE)
    log(client, run.id, metrics_of(item), item.run.config)
    if inputs := inputs_of(item):
        client.log_inputs(run.id, inputs)
    _finish(client, run, item.end, item.digest)
    return run


def _finish(client: MlflowClient, run: Known, end: int, content: str) -> None:
    client.set_terminated(run.id, "FINISHED", end_time=end)
    client.set_tag(run.id, DIGEST, content)
    run.tags[DIGEST] = content


def _figures(experiment: Experiment) -> dict[Path, str]:
    """The digests of the experiment's figures, by file; they are drawn by a job of their own."""
    folder = Path(experiment.results, experiment.experiment, "figures")
    return {file: file_sha256(file) for file in sorted(folder.glob("*.png"))}


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `outer.inner` keys with text values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)

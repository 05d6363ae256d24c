"""Write the grid as MLflow runs, one parent a cell and one child a seed, so that a repeat adds nothing.

A child has the digest of what it was made from, set as the very last thing: a run without a digest was cut
short, and is completed where it was begun under the digest that is wanted; one with another digest is of
older content and is written anew. What
may change without the run (its parent, its folder, figures drawn later) is no part of the digest and is
brought up to date in place.
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

from cotdistill.common.files import digest, hash_file
from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri, open_uri
from cotdistill.runs.grid import expand
from cotdistill.tracking import notes
from cotdistill.tracking.finished import (
    LAYOUT,
    FinishedRun,
    build_inputs,
    build_metrics,
    get_cell,
    select_finished,
)
from cotdistill.tracking.gone import mark_gone
from cotdistill.tracking.store import (
    BEGUN,
    CELL,
    DIGEST,
    FOLDER,
    GONE,
    NOTE,
    NOTE_DIGEST,
    PARENT,
    RUN,
    Busy,
    StoredRun,
    StoredRuns,
    connect,
    delete_doubles,
    find_experiment,
    hold_mirrors,
    hold_store,
    keep_tags,
    read_stored_runs,
    sweep,
)

ENTITIES_A_BATCH, PARAMS_A_BATCH = 1000, 100
FIGURES = "cotdistill.figures"
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

    What is written of a run comes from the tables of the experiment, its artifacts from its folder.

    Raises UserError when the store cannot be used, when another writer holds it for `timeout` seconds, when
    the tables are absent, corrupt or of another config, or when a run changed since they were collected.
    """
    with hold_store(experiment, timeout):
        # read once nobody else writes: a view from before another's writing would undo it
        finished = select_finished(experiment)
        client = connect(open_uri(experiment)[0])
        target = find_experiment(client, experiment)
        stored = read_stored_runs(client, target)
        outcomes = write_runs(client, target, experiment, finished, stored)
        lost = mark_gone(client, experiment, finished, stored)
        _tidy(client, stored, experiment)
    return build_report(experiment, outcomes, lost)


def build_report(experiment: Experiment, outcomes: dict[str, str], lost: int) -> dict[str, Any]:
    """Return what `track` returns, from the outcome (added, updated, unchanged) of each finished run's id."""
    counts = Counter(outcomes.values())
    return {
        "uri": get_uri(experiment),
        "experiment": experiment.experiment,
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "gone": lost,
        "missing": len(expand(experiment)) - len(outcomes),
    }


def write_runs(
    client: MlflowClient, target: str, experiment: Experiment, finished: list[FinishedRun], stored: StoredRuns
) -> dict[str, str]:
    """Write the finished runs into the MLflow experiment `target`; return the outcome of each by run id.

    stored: what the store holds; it is brought up to date.
    """
    known = {run.tags.get(DIGEST) for runs in stored.values() for run in runs}
    for item in finished:
        if item.digest not in known:
            item.check()  # a fault is found before anything is written
    figures = _digest_figures(experiment)
    outcomes: dict[str, str] = {}
    cells: dict[str, list[FinishedRun]] = {}
    for item in finished:
        cells.setdefault(get_cell(item.run.id), []).append(item)
    for cell, items in cells.items():
        content = digest({"layout": LAYOUT, "children": [item.digest for item in items]})
        parent = _keep_current(client, stored, (CELL, cell), content)
        if parent is None or DIGEST not in parent.tags:
            parent = _start_cell(client, target, cell, items, content, parent)
        stored[CELL, cell] = [parent]
        for item in items:
            outcomes[item.run.id] = _update_run(client, target, parent, item, stored)
        _surround_cell(client, parent, items, figures)
        if DIGEST not in parent.tags:
            _finish(client, parent, max(item.end for item in items), content)
    if set(outcomes.values()) - {"unchanged"}:
        delete_doubles(client, target, stored)
    return outcomes


def log_batches(client: MlflowClient, run_id: str, metrics: list[Metric], config: dict[str, Any]) -> None:
    """Log metrics and a nested config, in batches that every server takes."""
    params = [Param(key, value) for key, value in _flatten(config)]
    while params or metrics:
        some, params = params[:PARAMS_A_BATCH], params[PARAMS_A_BATCH:]
        room = ENTITIES_A_BATCH - len(some)
        client.log_batch(run_id, metrics=metrics[:room], params=some, synchronous=True)
        metrics = metrics[room:]


def _tidy(client: MlflowClient, stored: StoredRuns, experiment: Experiment) -> None:
    """Delete what is incomplete; mirrors of runs in training only where nobody follows them any more."""
    if sweep(client, stored, mirrors=False):
        # without a follower a mirror would stand as running for good
        with contextlib.suppress(Busy), hold_mirrors(experiment):
            sweep(client, stored, mirrors=True)


def _keep_current(
    client: MlflowClient, stored: StoredRuns, key: tuple[str, str], content: str
) -> StoredRun | None:
    """Return the stored run with this content, or the one that was begun to be; delete every other one."""
    runs = stored.get(key, [])
    complete = [run for run in runs if run.tags.get(DIGEST) == content]
    begun = [run for run in runs if DIGEST not in run.tags and run.tags.get(BEGUN) == content]
    kept = next(iter(complete + begun), None)
    for run in runs:
        if run is not kept:
            client.delete_run(run.id)
    stored[key] = [kept] if kept else []
    return kept


def _start_cell(
    client: MlflowClient, target: str, cell: str, items: list[FinishedRun], content: str,
    begun: StoredRun | None,
) -> StoredRun:  # fmt: skip
    """Create the parent of a cell, or go on with it: settings that its seeds share, and means over them."""
    tags = {CELL: cell, "cotdistill.seeds": ", ".join(str(item.run.seed) for item in items)}
    tags |= {**items[0].tags, BEGUN: content}
    parent = _begin(client, target, begun, min(item.start for item in items), tags, cell)
    end = max(item.end for item in items)
    metrics = []
    for name, interval in notes.compute_intervals(items).items():
        for part in ("mean", "sd", "low", "high", "n"):
            value = float(getattr(interval, part))
            if not math.isnan(value):
                metrics.append(Metric(f"{name}_{part}", value, end, 0))
    config = {key: value for key, value in items[0].run.config.items() if key != "seed"}
    log_batches(client, parent.id, _drop_logged(client, begun, metrics), config)
    return parent


def _begin(
    client: MlflowClient, target: str, begun: StoredRun | None, start: int, tags: dict[str, str], name: str
) -> StoredRun:
    """Create a run with its tags in one call; or go on with one that a killed call has begun."""
    if begun:
        keep_tags(client, begun, tags)
        return begun
    made = client.create_run(target, start_time=start, tags=tags, run_name=name)
    return StoredRun(made.info.run_id, tags)


def _drop_logged(client: MlflowClient, begun: StoredRun | None, metrics: list[Metric]) -> list[Metric]:
    """Return the metrics without those that a run has that was begun before: some stores would keep both."""
    if begun is None:
        return metrics
    known = {
        (key, point.step, point.timestamp)
        for key in client.get_run(begun.id).data.metrics
        for point in client.get_metric_history(begun.id, key)
    }
    return [metric for metric in metrics if (metric.key, metric.step, metric.timestamp) not in known]


def _surround_cell(
    client: MlflowClient, parent: StoredRun, items: list[FinishedRun], figures: dict[Path, str]
) -> None:
    """Bring up to date what stands around a parent: the figures, its folder, its description."""
    drawn = digest({file.name: found for file, found in figures.items()})
    around = {FOLDER: str(items[0].run.folder.parent.absolute()), FIGURES: drawn}
    if _is_up_to_date(parent, around):
        return
    if parent.tags.get(FIGURES) != drawn:
        for file in figures:
            client.log_artifact(parent.id, str(file), "figures")
    around[NOTE] = notes.describe_cell(items, [file.name for file in figures])
    _surround(client, parent, around)


def _update_run(
    client: MlflowClient, target: str, parent: StoredRun, item: FinishedRun, stored: StoredRuns
) -> str:
    """Write a run below its parent, or bring up to date what may change without it; return the outcome."""
    key = RUN, item.run.id
    complete = any(DIGEST in run.tags for run in stored.get(key, []))
    kept = _keep_current(client, stored, key, item.digest)
    around = {PARENT: parent.id, FOLDER: str(item.run.folder.absolute())}
    whole = kept is not None and DIGEST in kept.tags
    if kept and whole and _is_up_to_date(kept, around):
        return "unchanged"
    around[NOTE] = notes.describe_run(item, f"#/experiments/{target}/runs/{parent.id}/artifacts")
    if kept and whole:
        _surround(client, kept, around)
        return "unchanged"
    stored[key] = [_write_run(client, target, around, item, kept)]
    return "updated" if complete else "added"


def _is_up_to_date(run: StoredRun, around: dict[str, str]) -> bool:
    return around.items() <= run.tags.items() and GONE not in run.tags


def _surround(client: MlflowClient, run: StoredRun, around: dict[str, str]) -> None:
    keep_tags(client, run, around)
    if GONE in run.tags:
        client.delete_tag(run.id, GONE)
        del run.tags[GONE]


def _write_run(
    client: MlflowClient, target: str, around: dict[str, str], item: FinishedRun, begun: StoredRun | None
) -> StoredRun:
    tags = {RUN: item.run.id, "config_hash": item.run.hash, **notes.LOGGED, **item.tags}
    tags |= {**around, NOTE_DIGEST: digest(around[NOTE]), BEGUN: item.digest}
    run = _begin(client, target, begun, item.start, tags, item.run.id)
    # artifacts first: to place them MLflow reads the run, which takes longer once it has metrics
    for artifact in item.artifacts:
        client.log_artifact(run.id, str(artifact))
    client.log_dict(run.id, notes.read_sample(item.run.files.predictions), notes.SAMPLE)
    log_batches(client, run.id, _drop_logged(client, begun, build_metrics(item)), item.run.config)
    inputs = build_inputs(item)
    known = client.get_run(run.id).inputs if begun else None
    if inputs and not (known and known.dataset_inputs):
        client.log_inputs(run.id, inputs)
    _finish(client, run, item.end, item.digest)
    return run


def _finish(client: MlflowClient, run: StoredRun, end: int, content: str) -> None:
    client.set_terminated(run.id, "FINISHED", end_time=end)
    client.set_tag(run.id, DIGEST, content)
    run.tags[DIGEST] = content


def _digest_figures(experiment: Experiment) -> dict[Path, str]:
    """Return the digests of the experiment's figures, by file; they are drawn by a job of their own."""
    return {file: hash_file(file) for file in sorted((experiment.folder / "figures").glob("*.png"))}


def _flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return nested settings as `outer.inner` keys with text values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)

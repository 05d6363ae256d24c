"""The grid as MLflow runs: one parent a cell, one child a seed, written so that a repeat adds nothing.

A child carries the digest of the files it was made from, set as the very last thing: a run without
a digest was cut short, one with another digest is of older content, and both are written anew.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.entities import Metric, Param
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from cotdistill.config.grid import AXES, Run, expand
from cotdistill.config.models import Experiment
from cotdistill.errors import UserError
from cotdistill.files import atomic, digest, file_sha256, read_json
from cotdistill.results.collect import history_rows, result_row
from cotdistill.results.statistics import t_interval

RUN, CELL, DIGEST, PARENT = "cotdistill.run", "cotdistill.cell", "cotdistill.digest", "mlflow.parentRunId"
ARTIFACTS = ("config.json", "metrics.json", "environment.json", "predictions.jsonl")
# part of every digest: raise it when what is written of a run changes, and stores are brought up to date
LAYOUT = 1
METRICS_A_BATCH, OTHERS_A_BATCH = 1000, 100

# where a column of the table of results goes; the history keeps its own names (loss/..., valid/...)
FINAL = {
    "accuracy": "test/accuracy",
    "correct": "test/correct",
    "n_test": "test/n",
    "mean_confidence": "test/mean_confidence",
    "step": "selected/step",
    "valid_accuracy": "selected/valid_accuracy",
    "accuracy_published": "published/test_accuracy",
    "step_published": "published/step",
    "teacher_accuracy_train": "teacher/accuracy_train",
    "teacher_accuracy_valid": "teacher/accuracy_valid",
    "teacher_accuracy_test": "teacher/accuracy_test",
    "n_train": "data/n_train",
    "n_valid": "data/n_valid",
    "wall_s": "cost/wall_s",
    "evaluation_wall_s": "cost/evaluation_wall_s",
    "peak_memory_mb": "cost/peak_memory_mb",
}
SERIES = {
    "learning_rate": "training/learning_rate",
    "gradient_norm": "training/gradient_norm",
    "examples_per_second": "training/examples_per_second",
}


@dataclass(frozen=True)
class Finished:
    """A finished run: its row of results, its times (ms since 1970), its role and its content's digest."""

    run: Run
    row: dict[str, Any]
    start: int
    end: int
    role: str
    digest: str

    @property
    def cell(self) -> str:
        """The run's id without the seed."""
        return self.run.id.rsplit("/", 1)[0]


def track(experiment: Experiment, timeout: float = 120.0) -> dict[str, Any]:
    """Bring the MLflow store up to date with the finished runs of the grid.

    The store is `experiment.tracking.uri`, or SQLite at `<results>/mlflow.db` with artifacts below
    `<results>/mlartifacts`. Returns {"uri", "experiment", "added", "updated", "unchanged",
    "missing"}, the last four counting runs of the grid (children). Doing it twice adds nothing; a
    call that was killed is completed by the next; runs that left the grid stay in the store. A run
    that is written anew replaces the old one, which MLflow keeps as deleted until `mlflow gc`.

    Raises UserError when the store cannot be used, when another writer holds it for `timeout`
    seconds, or when a run folder is corrupt or of another config.
    """
    runs = expand(experiment)
    found = [_read(run) for run in runs]
    finished = [item for item in found if item is not None]
    uri = uri_of(experiment)
    with _locked(_lock_file(experiment, uri), timeout, uri), _one_line(uri):
        counts = _write(experiment, uri, finished)
    return {"uri": uri, "experiment": experiment.experiment, **counts, "missing": len(runs) - len(finished)}


def uri_of(experiment: Experiment) -> str:
    """The tracking URI of an experiment."""
    return experiment.tracking.uri or f"sqlite:///{Path(experiment.results).absolute() / 'mlflow.db'}"


def _read(run: Run) -> Finished | None:
    """The run's content, or None when it has not finished. Raises UserError on a corrupt folder."""
    row = result_row(run)
    if row["status"] == "missing":
        return None
    file = run.folder / "environment.json"
    environment = read_json(file)
    start, end = (_milliseconds(environment, key, file) for key in ("started_at", "finished_at"))
    hashes = {}
    for name in (*ARTIFACTS, "history.jsonl"):
        if not (run.folder / name).exists():
            raise UserError(f"{run.folder / name}: no such file, though the run has a metrics.json")
        hashes[name] = file_sha256(run.folder / name)
    role = _role(run)
    content = digest({"layout": LAYOUT, "run": run.id, "role": role, "files": hashes})
    return Finished(run, row, start, end, role, content)


def _role(run: Run) -> str:
    if run.method.name == run.experiment.baseline:
        return "baseline"
    return "proposed" if run.method.method == "mi" else "other"


def _milliseconds(environment: dict[str, Any], key: str, file: Path) -> int:
    try:
        moment = datetime.fromisoformat(str(environment.get(key)))
    except ValueError as error:
        found = environment.get(key)
        raise UserError(f"{file}: '{key}': expected an ISO date and time, found {found!r}") from error
    return int(moment.timestamp() * 1000)


def _lock_file(experiment: Experiment, uri: str) -> Path:
    """A lock beside the store; beside the results where the store is no file of this machine."""
    database = _database(uri)
    return (
        database.with_name(database.name + ".lock") if database else Path(experiment.results, "mlflow.lock")
    )


def _database(uri: str) -> Path | None:
    """The file of a SQLite store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?")[0]).absolute()


@contextlib.contextmanager
def _locked(file: Path, timeout: float, uri: str) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise UserError(
            f"{uri}: another process writes to this store and holds {file} (waited {timeout:g} s); "
            "track again when it has finished"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _one_line(uri: str) -> Iterator[None]:
    """Faults of the store as one line that names it."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{uri}: MLflow failed: {reason}; expected a store it can write") from error


def _client(uri: str) -> MlflowClient:
    """A client of the store, which is made first where it is a SQLite file that does not exist."""
    # alembic, which lays out the tables, tells each step otherwise
    logging.getLogger("alembic").setLevel(logging.WARNING)
    database = _database(uri)
    if database and not database.exists():
        # laid out aside and renamed: a store that was cut short while it was laid out stays broken
        with atomic(database) as part:
            MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    return MlflowClient(uri)


def _experiment_id(client: MlflowClient, experiment: Experiment, uri: str) -> str:
    name = experiment.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        # a server keeps artifacts where it is told to; only a store on this machine is ours to place
        local = uri.startswith(("sqlite:", "file:")) or "://" not in uri
        folder = Path(experiment.results).absolute() / "mlartifacts" / name
        return str(client.create_experiment(name, artifact_location=folder.as_uri() if local else None))
    if found.lifecycle_stage != "active":
        raise UserError(f"{uri}: the MLflow experiment '{name}' is deleted; restore it or use another name")
    return str(found.experiment_id)


def _write(experiment: Experiment, uri: str, finished: list[Finished]) -> dict[str, int]:
    client = _client(uri)
    experiment_id = _experiment_id(client, experiment, uri)
    stored = _stored(client, experiment_id)
    counts = {"added": 0, "updated": 0, "unchanged": 0}
    cells: dict[str, list[Finished]] = {}
    for item in finished:
        cells.setdefault(item.cell, []).append(item)
    for cell, items in cells.items():
        content = digest({"layout": LAYOUT, "children": [item.digest for item in items]})
        current = _current(client, stored.get((CELL, cell), []), content)
        parent = current or _start_parent(client, experiment_id, cell, items)
        for item in items:
            old = stored.get((RUN, item.run.id), [])
            kept = _current(client, old, item.digest)
            if kept is None:
                _write_child(client, experiment_id, parent, item)
                counts["updated" if old else "added"] += 1
                continue
            counts["unchanged"] += 1
            if kept.data.tags.get(PARENT) != parent.info.run_id:
                client.set_tag(kept.info.run_id, PARENT, parent.info.run_id)
        if current is None:
            _finish(client, parent, max(item.end for item in items), content)
    return counts


def _stored(client: MlflowClient, experiment_id: str) -> dict[tuple[str, str], list[StoredRun]]:
    """The runs of the MLflow experiment that are not deleted, by (tag, cell or run id)."""
    found: dict[tuple[str, str], list[StoredRun]] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        for run in page:
            for tag in (RUN, CELL):
                if tag in run.data.tags:
                    found.setdefault((tag, run.data.tags[tag]), []).append(run)
        token = page.token
        if not token:
            return found


def _current(client: MlflowClient, stored: list[StoredRun], content: str) -> StoredRun | None:
    """The stored run with this content; every other one (older, cut short, double) is deleted."""
    kept = next((run for run in stored if run.data.tags.get(DIGEST) == content), None)
    for run in stored:
        if run is not kept:
            client.delete_run(run.info.run_id)
    return kept


def _start_parent(client: MlflowClient, experiment_id: str, cell: str, items: list[Finished]) -> StoredRun:
    """Create the parent of a cell: settings that its seeds share, and means over them."""
    tags = {CELL: cell, "cotdistill.seeds": ", ".join(str(item.run.seed) for item in items)}
    tags |= _shared_tags(items[0])
    start = min(item.start for item in items)
    parent = client.create_run(experiment_id, start_time=start, tags=tags, run_name=cell)
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
    _log(client, parent.info.run_id, metrics, config)
    return parent


def _write_child(client: MlflowClient, experiment_id: str, parent: StoredRun, item: Finished) -> None:
    tags = {RUN: item.run.id, PARENT: parent.info.run_id, "config_hash": item.run.hash}
    tags |= _shared_tags(item)
    name = f"{item.cell}/{item.run.seed}"
    run = client.create_run(experiment_id, start_time=item.start, tags=tags, run_name=name)
    _log(client, run.info.run_id, _metrics(item), item.run.config)
    for artifact in ARTIFACTS:
        client.log_artifact(run.info.run_id, str(item.run.folder / artifact))
    _finish(client, run, item.end, item.digest)


def _finish(client: MlflowClient, run: StoredRun, end: int, content: str) -> None:
    client.set_terminated(run.info.run_id, "FINISHED", end_time=end)
    client.set_tag(run.info.run_id, DIGEST, content)


def _shared_tags(item: Finished) -> dict[str, str]:
    tags = {axis: str(item.run.axes[axis]) for axis in AXES if axis != "seed"}
    tags |= {"role": item.role, "objective": item.run.method.method, "mlflow.source.name": "cotdistill"}
    for column, names in {
        "git_commit": ("git_commit", "mlflow.source.git.commit"),
        "data_checksum": ("data_checksum",),
    }.items():
        if item.row[column]:
            tags |= dict.fromkeys(names, item.row[column])
    return tags


def _metrics(item: Finished) -> list[Metric]:
    """Final numbers and the series of a run.

    A history has steps and no clock, and MLflow wants a time for each value: the times are spread
    evenly over the run by step.
    """
    history = history_rows(item.run)
    last = max((line["step"] for line in history), default=0) or 1
    metrics = []
    for line in history:
        moment = item.start + (item.end - item.start) * line["step"] // last
        name = SERIES.get(line["metric"], line["metric"])
        metrics.append(Metric(name, line["value"], moment, line["step"]))
    for column, name in FINAL.items():
        value = float(item.row[column])
        if not math.isnan(value):
            metrics.append(Metric(name, value, item.end, int(item.row["step"])))
    return metrics


def _log(client: MlflowClient, run_id: str, metrics: list[Metric], config: dict[str, Any]) -> None:
    params = [Param(key, value) for key, value in _flat(config)]
    for start in range(0, len(params), OTHERS_A_BATCH):
        client.log_batch(run_id, params=params[start : start + OTHERS_A_BATCH], synchronous=True)
    for start in range(0, len(metrics), METRICS_A_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_BATCH], synchronous=True)


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `outer.inner` keys with text values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)

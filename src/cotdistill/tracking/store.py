"""Reach the MLflow store: where it is, who may write to it, and its faults as one line."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from cotdistill.common.errors import UserError
from cotdistill.common.files import atomic, digest, remove_leftovers
from cotdistill.config.addresses import hide_values
from cotdistill.config.models import Experiment
from cotdistill.config.store import find_database, get_uri, open_uri

RUN, CELL, DIGEST, PARENT = "cotdistill.run", "cotdistill.cell", "cotdistill.digest", "mlflow.parentRunId"
BEGUN = "cotdistill.begun"
"""tag of a run from its creation on: the digest that it gets once all of it is written"""
LIVE = "cotdistill.live"
"""tag of what `track --follow` mirrors of runs in training: gone when the run has finished"""
GONE = "cotdistill.gone"
"""tag of what has no finished folder any more: the day (UTC) on which that was first seen"""
FOLDER = "cotdistill.folder"
NOTE, NOTE_DIGEST = "mlflow.note.content", "cotdistill.note"
"""a run's description, and the digest of the one that was written: another one is a person's"""

QUIET_S = 3.0
"""seconds of waiting for another writer before it is said"""


@dataclass
class StoredRun:
    """A run of the store: its id there and its tags."""

    id: str
    tags: dict[str, str]


StoredRuns = dict[tuple[str, str], list[StoredRun]]
"""runs of the store by (RUN or CELL, the run's or the cell's id)"""


class StoreFault(UserError):
    """The store cannot be reached, read or written."""


class Busy(UserError):
    """Another process holds the lock."""


def is_remote(uri: str) -> bool:
    """Return whether the store is behind a server, which may come back after it went away."""
    return uri.lower().startswith(("http://", "https://"))


@contextlib.contextmanager
def hold_store(experiment: Experiment, timeout: float) -> Iterator[None]:
    """Hold the store as its only writer on this machine; its faults end in one line.

    The lock is beside a SQLite store, whichever program uses it, and beside the results where the store is no
    file of this machine. The system frees it with a process that is killed.

    Raises Busy when another process holds it for `timeout` seconds, StoreFault, and UserError.
    """
    uri, (opened, hidden) = get_uri(experiment), open_uri(experiment)
    database = find_database(opened)
    file = (
        database.with_name(database.name + ".lock") if database else Path(experiment.results, "mlflow.lock")
    )
    taken = f"{uri}: another process writes to this store"
    with hold_lock(file, timeout, taken), report_faults(uri, hidden):
        yield


@contextlib.contextmanager
def hold_mirrors(experiment: Experiment) -> Iterator[None]:
    """Hold the live mirrors of a grid. Raises Busy when another process does."""
    with hold_lock(_find_follow_file(experiment), 0, "another `track --follow` mirrors this grid"):
        yield


@contextlib.contextmanager
def hold_lock(file: Path, timeout: float, taken: str) -> Iterator[None]:
    """Hold a lock file; `taken` says what it means that another process does. Raises Busy, UserError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=min(QUIET_S, timeout))
        except Timeout:
            if timeout > QUIET_S:
                print(f"{taken}; waiting up to {timeout:g} s", file=sys.stderr, flush=True)
                lock.acquire(timeout=timeout - QUIET_S)
            else:
                raise
    except Timeout as error:
        raise Busy(
            f"{taken} and holds {file} (waited {timeout:g} s); track again when it has finished"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _find_follow_file(experiment: Experiment) -> Path:
    database = find_database(open_uri(experiment)[0])
    name = f"{database.name if database else 'mlflow'}.{experiment.experiment}.follow.lock"
    return database.with_name(name) if database else Path(experiment.results, name)


@contextlib.contextmanager
def report_faults(uri: str, hidden: dict[str, str] | None = None) -> Iterator[None]:
    """Raise faults of the store as a StoreFault of one line that names it.

    hidden: what MLflow may say and is not to be shown, with what stands for it.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:  # a database without its driver
        reason = hide_values((str(error).strip() or type(error).__name__).splitlines()[0], hidden or {})
        fault = StoreFault(f"{uri}: MLflow failed: {reason}; expected a store it can write")
        # the cause holds the address as it was opened: a traceback would show it
        raise fault from (None if hidden else error)
    except ValueError as error:
        if "for MLFLOW_" not in str(error):
            raise
        # as MLflow says it: failed to convert 'abc' for MLFLOW_...
        raise UserError(f"environment: {error}; unset the variable") from error


def connect(uri: str) -> MlflowClient:
    """Return a client of the store, which is made first where it is a SQLite file that does not exist."""
    # alembic, which lays out the tables, tells each step; MLflow prints the traceback of an error that
    # it also raises
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    database = find_database(uri)
    if database:
        remove_leftovers(database.parent, database.name)
    if database and not database.exists():
        # laid out aside and renamed: a store that was cut short while it was laid out stays broken
        with atomic(database) as part:
            MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    return MlflowClient(uri)


def find_experiment(client: MlflowClient, experiment: Experiment) -> str:
    """Return the id of the MLflow experiment; make it where there is none. Raises StoreFault, UserError."""
    uri, name = get_uri(experiment), experiment.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        # a server keeps artifacts where it is told to; only a store on this machine is ours to place
        opened = client.tracking_uri
        local = opened.startswith(("sqlite:", "file:")) or "://" not in opened
        folder = Path(experiment.results).absolute() / "mlartifacts" / name
        try:
            return str(client.create_experiment(name, artifact_location=folder.as_uri() if local else None))
        except MlflowException:
            # someone else made it at this moment, or the answer to our own call was lost and it came twice
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(f"{uri}: the MLflow experiment '{name}' is deleted; restore it or use another name")
    return str(found.experiment_id)


def read_stored_runs(client: MlflowClient, experiment_id: str) -> StoredRuns:
    """Return the runs of the MLflow experiment that are not deleted."""
    found: StoredRuns = {}
    for run in _read_runs(client, experiment_id):
        for tag in (RUN, CELL):
            if tag in run.tags:
                found.setdefault((tag, run.tags[tag]), []).append(run)
    return found


def _read_runs(client: MlflowClient, experiment_id: str) -> list[StoredRun]:
    """Return every run that is not deleted, with its tags.

    MLflow's search also reads each run's settings and metrics, which takes many times as long: from a
    SQLite store the tags are read alone. Tables that are not as expected are left to MLflow.
    """
    database = find_database(client.tracking_uri)
    if database:
        with contextlib.suppress(sqlite3.Error):
            return _read_tags(database, experiment_id)
    found: list[StoredRun] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        found += [StoredRun(run.info.run_id, dict(run.data.tags)) for run in page]
        token = page.token
        if not token:
            return found


def _read_tags(database: Path, experiment_id: str) -> list[StoredRun]:
    query = (
        "SELECT runs.run_uuid, tags.key, tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
        "WHERE runs.experiment_id = ? AND runs.lifecycle_stage = 'active'"
    )
    tags: dict[str, dict[str, str]] = {}
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        for run_id, key, value in connection.execute(query, (int(experiment_id),)):
            tags.setdefault(run_id, {})[key] = value
    return [StoredRun(run_id, found) for run_id, found in tags.items()]


def delete_doubles(client: MlflowClient, experiment_id: str, stored: StoredRuns) -> None:
    """Delete incomplete runs that came to stand beside a complete one since `stored` was read.

    A server may create a run for a call that was killed, or twice where its first answer was lost.
    """
    for key, runs in read_stored_runs(client, experiment_id).items():
        complete = {run.id for run in stored.get(key, []) if DIGEST in run.tags}
        for run in runs:
            if complete and run.id not in complete and DIGEST not in run.tags:
                client.delete_run(run.id)


def sweep(client: MlflowClient, stored: StoredRuns, mirrors: bool) -> bool:
    """Delete what is incomplete: cut short by a kill or a lost answer; live mirrors too if `mirrors`.

    Returns whether mirrors are left.
    """
    left = False
    for key, runs in stored.items():
        kept = []
        for run in runs:
            live = LIVE in run.tags and not mirrors
            if DIGEST in run.tags or live:
                kept.append(run)
                left = left or (live and DIGEST not in run.tags)
            else:
                client.delete_run(run.id)
        stored[key] = kept
    return left


def keep_tags(client: MlflowClient, run: StoredRun, wanted: dict[str, str]) -> None:
    """Set the tags that are not as wanted; a description that a person wrote stays."""
    found = run.tags
    if NOTE in wanted:
        wanted = {**wanted, NOTE_DIGEST: digest(wanted[NOTE])}
        if NOTE in found and digest(found[NOTE]) != found.get(NOTE_DIGEST):
            wanted = {key: value for key, value in wanted.items() if key not in (NOTE, NOTE_DIGEST)}
    changed = [RunTag(key, value) for key, value in wanted.items() if found.get(key) != value]
    if changed:
        client.log_batch(run.id, tags=changed, synchronous=True)
        found.update({tag.key: tag.value for tag in changed})

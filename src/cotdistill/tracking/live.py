"""Mirror runs in training into MLflow until every run of the grid has finished.

A mirror is a child run with status RUNNING that has a `cotdistill.live` tag and no digest. When its run
has finished, the run that `track` writes takes its place; what is left of mirrors is deleted at the end.
So the store ends as a plain `track` leaves it, whatever happened to the follower on the way.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri, open_uri
from cotdistill.runs.grid import Run, expand
from cotdistill.runs.lease import find_holder
from cotdistill.runs.outputs import read_start, was_written_under
from cotdistill.tables.collect import build_result_row, read_ratings
from cotdistill.tables.columns import get_role
from cotdistill.tracking.finished import (
    SERIES,
    ChangedError,
    FinishedRun,
    build_tags,
    get_cell,
    list_artifacts,
    read_finished,
)
from cotdistill.tracking.gone import mark_gone
from cotdistill.tracking.mlflow_store import build_report, log_batches, write_runs
from cotdistill.tracking.store import (
    CELL,
    DIGEST,
    LIVE,
    PARENT,
    RUN,
    Busy,
    StoredRun,
    StoredRuns,
    StoreFault,
    connect,
    find_experiment,
    hold_mirrors,
    hold_store,
    is_remote,
    read_stored_runs,
    sweep,
)

Signature = tuple[tuple[int, int, int], ...]
Line = dict[str, Any]
Live = dict[str, tuple[Run, list[Line]]]


class Stopped(BaseException):
    """The user, or the system, asked this process to end."""


def follow(experiment: Experiment, every: float = 5.0) -> dict[str, Any]:
    """Track the grid while it runs, looking every `every` seconds; returns what `track` returns.

    Ends when every run of the grid is done and written, and on SIGINT or SIGTERM. A server that goes
    away is tried again until it is back. A step that a resumed run trains again is logged once, as
    first seen; the finished run gets its history as it stands in its folder.

    Raises UserError when the store cannot be used to begin with, when a local store fails, and when
    another process follows the grid.
    """
    say = functools.partial(print, flush=True)  # a log file is read while this runs
    follower = Follower(experiment, say)
    with hold_mirrors(experiment):
        try:
            with _catch_signals() as asked:
                say(f"following {experiment.experiment} into {get_uri(experiment)}, every {every:g} s")
                while not follower.look():
                    # a library may have swallowed the exception that the signal raised
                    if asked.wait(every):
                        raise Stopped
        except Stopped:
            say(f"stopped: {follower.close()}")
        return build_report(experiment, follower.outcomes, follower.gone)


@dataclass
class Mirror:
    """A run in training as MLflow has it: its id there and the points (metric, step) that were logged."""

    id: str
    known: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class GridState:
    """The grid at one moment: finished runs, runs in training with their history, whether all is done."""

    finished: list[FinishedRun]
    live: Live
    done: bool

    @property
    def digests(self) -> list[str]:
        """The digests of the finished runs, which the store has once they are written."""
        return [item.digest for item in self.finished]


class Follower:
    """The state of following a grid: what was read of it and of its store; all can be read anew from both."""

    def __init__(self, experiment: Experiment, say: Callable[[str], None]) -> None:
        self.experiment, self.uri = experiment, get_uri(experiment)
        self.runs, self.say = expand(experiment), say
        self._ratings = read_ratings(experiment)
        self.outcomes: dict[str, str] = {}
        self.gone = 0
        self.mirrors: dict[str, Mirror] | None = None
        self.written: list[str] | None = None
        self._read: dict[str, tuple[Signature, FinishedRun]] = {}
        self._lines: dict[str, tuple[Signature, list[Line]]] = {}
        self._said: dict[str, str] = {}
        self._began, self._faults = False, 0

    def look(self) -> bool:
        """Bring the store up to date with the run folders once. Returns whether all is done.

        Raises UserError for faults that will not pass by themselves.
        """
        seen = self._look_at_grid()
        if not self._has_news(seen):
            return seen.done
        try:
            with hold_store(self.experiment, 30.0):
                # seen anew: what another tracker has finished meanwhile is no live run any more
                seen = self._look_at_grid()
                self._write(seen)
        except (Busy, StoreFault, ChangedError) as error:
            # what an interrupted call has reached is not known: it is read from the store again
            self.mirrors = self.written = None
            self._faults += isinstance(error, StoreFault)
            if not self._may_pass(error):
                raise
            self._say_once("store", f"{error}; trying again until it answers")
            return False
        self._faults, self._began = 0, True
        self._say_over("store", f"{self.uri}: answers again")
        return seen.done

    def close(self) -> str:
        """Delete the mirrors, for a follower that ends early; says what is left to do."""
        rest = "`cotdistill track` writes what has finished since"
        try:
            with hold_store(self.experiment, 10.0):
                client = connect(open_uri(self.experiment)[0])
                stored = read_stored_runs(client, find_experiment(client, self.experiment))
                sweep(client, stored, mirrors=True)
        except (UserError, KeyboardInterrupt) as error:
            return f"{rest} and removes what was mirrored of runs in training ({str(error) or 'interrupted'})"
        return f"runs in training are no longer mirrored; {rest}"

    def _may_pass(self, error: UserError) -> bool:
        """Return whether a fault may pass: another writer, a changed run, or a store that answered before.

        A server may be away for hours; a store on this machine gets a second try, for a mirror that
        somebody deleted.
        """
        return isinstance(error, (Busy, ChangedError)) or (
            self._began and (is_remote(self.uri) or self._faults < 2)
        )

    def _look_at_grid(self) -> GridState:
        finished, live = [], {}
        for run in self.runs:
            if was_written_under(run, run.files.metrics):
                item = self._read_finished_run(run)
                finished += [item] if item else []
            elif lines := self._read_live_history(run):
                live[run.id] = run, lines
        return GridState(finished, live, len(finished) == len(self.runs))

    def _has_news(self, seen: GridState) -> bool:
        if self.mirrors is None or self.written != seen.digests:
            return True
        mirrors = self.mirrors
        return any(
            name not in mirrors or _select_points(lines, mirrors[name].known)
            for name, (_, lines) in seen.live.items()
        )

    def _write(self, seen: GridState) -> None:
        client = connect(open_uri(self.experiment)[0])
        target = find_experiment(client, self.experiment)
        if self.mirrors is None or self.written != seen.digests:
            stored = read_stored_runs(client, target)
            outcomes = write_runs(client, target, self.experiment, seen.finished, stored)
            self.gone = mark_gone(client, self.experiment, seen.finished, stored)
            new = {run_id: outcome for run_id, outcome in outcomes.items() if outcome != "unchanged"}
            if new:
                self.say(f"{len(outcomes)} finished runs in the store, {len(new)} of them new")
            self.outcomes = {name: new.get(name, self.outcomes.get(name, "unchanged")) for name in outcomes}
            sweep(client, stored, mirrors=False)
            self.mirrors = self._adopt(client, target, seen.live, stored)
            self.written = seen.digests
        for run, lines in seen.live.values():
            self._mirror(client, target, run, lines)

    def _adopt(self, client: MlflowClient, target: str, live: Live, stored: StoredRuns) -> dict[str, Mirror]:
        """Return the stored mirrors, put each below its cell's parent, and delete those of no live run."""
        cells = {get_cell(run.id) for run, _ in live.values()}
        mirrors: dict[str, Mirror] = {}
        for (tag, name), runs in list(stored.items()):  # a parent may be added
            wanted = live[name][0].hash if tag == RUN and name in live else None
            for run in (run for run in runs if DIGEST not in run.tags):
                if tag == CELL and name in cells:
                    continue
                if wanted is None or run.tags.get("config_hash") != wanted or name in mirrors:
                    client.delete_run(run.id)
                    continue
                mirrors[name] = Mirror(run.id, _read_points(client, run.id))
                below = _find_parent(client, target, live[name][0], stored)
                client.set_tag(run.id, PARENT, below)
                # without settings where its follower was killed between making it and this
                if not client.get_run(run.id).data.params:
                    log_batches(client, run.id, [], live[name][0].config)
        return mirrors

    def _mirror(self, client: MlflowClient, target: str, run: Run, lines: list[Line]) -> None:
        """Log what a run in training has written since; its mirror is made first where there is none."""
        assert self.mirrors is not None
        mirror = self.mirrors.get(run.id)
        if mirror is None:
            parent = _find_parent(client, target, run, read_stored_runs(client, target))
            tags = {RUN: run.id, PARENT: parent, "config_hash": run.hash, LIVE: "true", **build_run_tags(run)}
            made = client.create_run(target, start_time=find_start(run), tags=tags, run_name=run.id)
            log_batches(client, made.info.run_id, [], run.config)
            mirror = self.mirrors[run.id] = Mirror(made.info.run_id)
        points = _select_points(lines, mirror.known)
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for (key, step), value in points.items()]
        log_batches(client, mirror.id, metrics, {})
        mirror.known |= set(points)

    def _read_finished_run(self, run: Run) -> FinishedRun | None:
        """Return a finished run; read it again only when its files were touched."""
        signature = _sign([*list_artifacts(run.files), run.files.history])
        kept = self._read.get(run.id)
        if kept is None or kept[0] != signature:
            try:
                item = read_finished(run, self._ratings)
                if item:
                    item.check()
            except UserError as error:
                # it may be in the middle of being written anew
                self._say_once(run.id, f"{error}; left out until it can be read")
                return None
            if item is None:
                return None
            kept = self._read[run.id] = (signature, item)
        self._say_over(run.id, f"{run.id}: can be read again")
        return kept[1]

    def _read_live_history(self, run: Run) -> list[Line]:
        """Return the history so far of a run in training, stopped, or waiting for evaluation."""
        trained = was_written_under(run, run.files.training)
        file = run.files.history if trained else run.state / run.files.history.name
        signature = _sign([file])
        kept = self._lines.get(run.id)
        if kept is None or kept[0] != signature:
            kept = self._lines[run.id] = (signature, _read_lines(file))
        return kept[1]

    def _say_once(self, about: str, text: str) -> None:
        if about not in self._said:
            self._said[about] = text
            self.say(text)

    def _say_over(self, about: str, text: str) -> None:
        if self._said.pop(about, None):
            self.say(text)


@contextlib.contextmanager
def _catch_signals() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into Stopped, and set the event that is given."""
    asked = threading.Event()

    def stop(number: int, frame: Any) -> None:
        for name in previous:
            signal.signal(name, signal.SIG_IGN)  # while the first one unwinds
        asked.set()
        raise Stopped

    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may set handlers, and only it is interrupted
        return
    previous = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        for name in previous:
            signal.signal(name, stop)
        yield asked
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def _sign(files: Iterable[Path]) -> Signature:
    """Return what changes when one of the files is written or replaced."""
    found = []
    for file in files:
        try:
            stat = os.stat(file)
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def _read_lines(file: Path) -> list[Line]:
    """Return the lines of a history that is being written, without a torn last one."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []  # moved to its place, or deleted before a retry, at this moment
    lines = []
    for raw in text.split("\n")[:-1]:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(raw)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines


def _select_points(lines: list[Line], known: set[tuple[str, int]]) -> dict[tuple[str, int], float]:
    """Return the values of a history by metric and step, without the known ones."""
    found: dict[tuple[str, int], float] = {}
    for line in lines:
        for key, value in line.items():
            if key in ("step", "epoch") or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            point = (SERIES.get(key, key), line["step"])
            if point not in known:
                found[point] = float(value)
    return found


def _find_parent(client: MlflowClient, target: str, run: Run, stored: StoredRuns) -> str:
    """Return the MLflow id of the cell's parent; make a mirror of one while no seed of it has finished."""
    cell = get_cell(run.id)
    if not stored.get((CELL, cell)):
        tags = {CELL: cell, LIVE: "true", **build_run_tags(run)}
        made = client.create_run(target, tags=tags, run_name=cell)
        stored[CELL, cell] = [StoredRun(made.info.run_id, tags)]
    return stored[CELL, cell][0].id


def _read_points(client: MlflowClient, run_id: str) -> set[tuple[str, int]]:
    keys = client.get_run(run_id).data.metrics
    return {(key, point.step) for key in keys for point in client.get_metric_history(run_id, key)}


def build_run_tags(run: Run) -> dict[str, str]:
    """Return the tags of a run that has not finished."""
    row = build_result_row(run, None)
    return build_tags(row, get_role(row["method"], row["proposed"], run.experiment.baseline))


def find_start(run: Run) -> int:
    """Return when training of the run began, in ms since 1970: now, where nothing tells.

    The process that trains tells when it took the run; without one, training noted its first start.
    """
    found = find_holder(run.files.states)
    since = found.about.get("since") if found else None
    if isinstance(since, (int, float)) and math.isfinite(since):
        return int(since * 1000)
    try:
        return int(datetime.fromisoformat(read_start(run) or "").timestamp() * 1000)
    except ValueError:
        return int(time.time() * 1000)

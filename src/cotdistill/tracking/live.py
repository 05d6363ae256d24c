"""Live tracking: mirror runs in training into MLflow until every run of the grid has finished.

A mirror is a child run with status RUNNING that has a `cotdistill.live` tag and no digest. When its run
has finished, the run that `track` writes takes its place; what is left of mirrors is deleted at the end.
So the store ends as a plain `track` leaves it, whatever happened to the follower on the way.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json
from cotdistill.config.models import Experiment
from cotdistill.runs.grid import Run, expand
from cotdistill.tracking import gone
from cotdistill.tracking.finished import FILES, SERIES, Finished, cell_of, read, tags_of
from cotdistill.tracking.mlflow_store import log, report, write
from cotdistill.tracking.store import (
    CELL,
    DIGEST,
    LIVE,
    PARENT,
    RUN,
    Busy,
    Known,
    Stored,
    StoreFault,
    connect,
    experiment_id,
    following,
    remote,
    stored_runs,
    sweep,
    uri_of,
    writing,
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
    with following(experiment):
        try:
            with _signals() as asked:
                say(f"following {experiment.experiment} into {uri_of(experiment)}, every {every:g} s")
                while not follower.look():
                    # a library may have swallowed the exception that the signal raised
                    if asked.wait(every):
                        raise Stopped
        except Stopped:
            say(f"stopped: {follower.close()}")
        return report(experiment, follower.outcomes, follower.gone)


@dataclass
class Mirror:
    """A run in training as it stands in MLflow: its id there and the points (metric, step) it has."""

    id: str
    known: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class Seen:
    """The grid at one look: finished runs, runs in training by id with their history, whether all is done."""

    finished: list[Finished]
    live: Live
    done: bool

    @property
    def digests(self) -> list[str]:
        """What the store holds once this is written."""
        return [item.digest for item in self.finished]


class Follower:
    """What one process knows of a grid and of its store; all of it can be read anew from both."""

    def __init__(self, experiment: Experiment, say: Callable[[str], None]) -> None:
        self.experiment, self.uri = experiment, uri_of(experiment)
        self.runs, self.say = expand(experiment), say
        self.outcomes: dict[str, str] = {}
        self.gone = 0
        self.mirrors: dict[str, Mirror] | None = None
        self.written: list[str] | None = None
        self._read: dict[str, tuple[Signature, Finished]] = {}
        self._lines: dict[str, tuple[Signature, list[Line]]] = {}
        self._said: dict[str, str] = {}
        self._began, self._faults = False, 0

    def look(self) -> bool:
        """Bring the store up to date with the run folders once. Returns whether all is done.

        Raises UserError for faults that will not pass by themselves.
        """
        seen = self._see()
        if not self._news(seen):
            return seen.done
        try:
            with writing(self.experiment, 30.0):
                # seen anew: what another tracker has finished meanwhile is no live run any more
                seen = self._see()
                self._write(seen)
        except (Busy, StoreFault) as error:
            # what an interrupted call has reached is not known: it is read from the store again
            self.mirrors = self.written = None
            self._faults += not isinstance(error, Busy)
            if not self._passing(error):
                raise
            self._once("store", f"{error}; trying again until it answers")
            return False
        self._faults, self._began = 0, True
        self._over("store", f"{self.uri}: answers again")
        return seen.done

    def close(self) -> str:
        """Delete the mirrors, for a follower that ends early; says what is left to do."""
        rest = "`cotdistill track` writes what has finished since"
        try:
            with writing(self.experiment, 10.0):
                client = connect(self.uri)
                sweep(client, stored_runs(client, experiment_id(client, self.experiment)), mirrors=True)
        except (UserError, KeyboardInterrupt) as error:
            return f"{rest} and removes what was mirrored of runs in training ({str(error) or 'interrupted'})"
        return f"runs in training are no longer mirrored; {rest}"

    def _passing(self, error: UserError) -> bool:
        """Whether a fault may pass: another writer, or a store that has answered before.

        A server may be away for hours; a store on this machine gets a second try, for a mirror that
        somebody deleted.
        """
        return isinstance(error, Busy) or (self._began and (remote(self.uri) or self._faults < 2))

    def _see(self) -> Seen:
        finished, live = [], {}
        for run in self.runs:
            if _is_of(run, run.files.metrics):
                item = self._finished(run)
                finished += [item] if item else []
            elif lines := self._live(run):
                live[run.id] = run, lines
        return Seen(finished, live, len(finished) == len(self.runs))

    def _news(self, seen: Seen) -> bool:
        if self.mirrors is None or self.written != seen.digests:
            return True
        mirrors = self.mirrors
        return any(
            name not in mirrors or _points(lines, mirrors[name].known)
            for name, (_, lines) in seen.live.items()
        )

    def _write(self, seen: Seen) -> None:
        client = connect(self.uri)
        target = experiment_id(client, self.experiment)
        if self.mirrors is None or self.written != seen.digests:
            stored = stored_runs(client, target)
            outcomes = write(client, target, self.experiment, seen.finished, stored)
            self.gone = gone.mark(client, self.experiment, seen.finished, stored)
            new = {run_id: outcome for run_id, outcome in outcomes.items() if outcome != "unchanged"}
            if new:
                self.say(f"{len(outcomes)} finished runs in the store, {len(new)} of them new")
            self.outcomes = {name: new.get(name, self.outcomes.get(name, "unchanged")) for name in outcomes}
            sweep(client, stored, mirrors=False)
            self.mirrors = self._adopt(client, target, seen.live, stored)
            self.written = seen.digests
        for run, lines in seen.live.values():
            self._mirror(client, target, run, lines)

    def _adopt(self, client: MlflowClient, target: str, live: Live, stored: Stored) -> dict[str, Mirror]:
        """The mirrors in the store, each put below its cell's parent; those of no live run are deleted."""
        cells = {cell_of(run) for run, _ in live.values()}
        mirrors: dict[str, Mirror] = {}
        for (tag, name), runs in list(stored.items()):  # a parent may be added
            wanted = live[name][0].hash if tag == RUN and name in live else None
            for run in (run for run in runs if DIGEST not in run.tags):
                if tag == CELL and name in cells:
                    continue
                if wanted is None or run.tags.get("config_hash") != wanted or name in mirrors:
                    client.delete_run(run.id)
                    continue
                mirrors[name] = Mirror(run.id, _stored_points(client, run.id))
                below = _parent(client, target, live[name][0], stored)
                client.set_tag(run.id, PARENT, below)
                if not client.get_run(
                    run.id
                ).data.params:  # its follower was killed between making it and this
                    log(client, run.id, [], live[name][0].config)
        return mirrors

    def _mirror(self, client: MlflowClient, target: str, run: Run, lines: list[Line]) -> None:
        """Log what a run in training has written since; its mirror is made first where there is none."""
        assert self.mirrors is not None
        mirror = self.mirrors.get(run.id)
        if mirror is None:
            parent = _parent(client, target, run, stored_runs(client, target))
            tags = {RUN: run.id, PARENT: parent, "config_hash": run.hash, LIVE: "true", **tags_of(run)}
            made = client.create_run(target, start_time=_started(run), tags=tags, run_name=run.id)
            log(client, made.info.run_id, [], run.config)
            mirror = self.mirrors[run.id] = Mirror(made.info.run_id)
        points = _points(lines, mirror.known)
        now = int(time.time() * 1000)
        log(client, mirror.id, [Metric(key, value, now, step) for (key, step), value in points.items()], {})
        mirror.known |= set(points)

    def _finished(self, run: Run) -> Finished | None:
        """The content of a run that is done; kept while its files are not touched."""
        signature = _signature(run.folder / name for name in FILES)
        kept = self._read.get(run.id)
        if kept is None or kept[0] != signature:
            try:
                item = read(run)
                if item:
                    item.check()
            except UserError as error:
                # it may be in the middle of being written anew
                self._once(run.id, f"{error}; left out until it can be read")
                return None
            if item is None:
                return None
            kept = self._read[run.id] = (signature, item)
        self._over(run.id, f"{run.id}: can be read again")
        return kept[1]

    def _live(self, run: Run) -> list[Line]:
        """The history so far of a run that has begun: in training, stopped, or waiting for evaluation."""
        trained = _is_of(run, run.files.training)
        file = (run.folder if trained else run.state) / "history.jsonl"
        signature = _signature([file])
        kept = self._lines.get(run.id)
        if kept is None or kept[0] != signature:
            kept = self._lines[run.id] = (signature, _lines(file))
        return kept[1]

    def _once(self, about: str, text: str) -> None:
        if about not in self._said:
            self._said[about] = text
            self.say(text)

    def _over(self, about: str, text: str) -> None:
        if self._said.pop(about, None):
            self.say(text)


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
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


def _is_of(run: Run, file: Path) -> bool:
    """Whether `file` was written under this run's config: what an earlier config left is to be redone."""
    try:
        return file.is_file() and bool(read_json(file)["hash"] == run.hash)
    except (UserError, OSError, KeyError, TypeError):
        return False  # it may be on its way to another place at this moment


def _signature(files: Iterable[Path]) -> Signature:
    """Changes when a file is written or replaced."""
    found = []
    for file in files:
        try:
            stat = os.stat(file)
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def _lines(file: Path) -> list[Line]:
    """The lines of a history that is being written: a torn last one is left for the next look."""
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


def _points(lines: list[Line], known: set[tuple[str, int]]) -> dict[tuple[str, int], float]:
    """The values of a history by metric and step, less the known ones."""
    found: dict[tuple[str, int], float] = {}
    for line in lines:
        for key, value in line.items():
            if key in ("step", "epoch") or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            point = (SERIES.get(key, key), line["step"])
            if point not in known:
                found[point] = float(value)
    return found


def _parent(client: MlflowClient, target: str, run: Run, stored: Stored) -> str:
    """The MLflow id of the cell's parent; a mirror of one while no seed of the cell has finished."""
    cell = cell_of(run)
    if not stored.get((CELL, cell)):
        tags = {CELL: cell, LIVE: "true", **tags_of(run)}
        made = client.create_run(target, tags=tags, run_name=cell)
        stored[CELL, cell] = [Known(made.info.run_id, tags)]
    return stored[CELL, cell][0].id


def _stored_points(client: MlflowClient, run_id: str) -> set[tuple[str, int]]:
    keys = client.get_run(run_id).data.metrics
    return {(key, point.step) for key in keys for point in client.get_metric_history(run_id, key)}


def _started(run: Run) -> int:
    """When training of the run began, or went on, in ms since 1970."""
    try:
        return int((run.files.config).stat().st_mtime * 1000)
    except OSError:
        return int(time.time() * 1000)

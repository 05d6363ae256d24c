"""One run, one writer: a lease in the run's state folder, safe on file systems shared by machines.

A lease is a file `lease-<n>`, created exclusively, in which its holder counts up every few seconds. A
waiter takes over, as n + 1, when the count stands still on the waiter's own clock (clocks of machines
need not agree), or at once when the holder was a process of this machine, or an earlier start of this
Slurm job, that is gone. A holder that was only asleep finds its file gone and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cotdistill.errors import UserError
from cotdistill.jobs import stopping

BEAT, STALE, POLL = 5.0, 90.0, 1.0
"""seconds: between counts, without a count until the holder passes for dead, between a waiter's looks"""
SIZE = 1024
"""bytes of a lease file: always written whole, so that a reader never sees two texts mixed in length"""


@dataclass(frozen=True)
class Holder:
    """A lease file as read: its number, its text, and what its holder said of itself ({} while writing)."""

    path: Path
    number: int
    text: str
    about: dict[str, Any]

    def __str__(self) -> str:
        job = self.about.get("slurm_job")
        known = f"process {self.about.get('pid', '?')} on {self.about.get('host', '?')}"
        return known + (f" (Slurm job {job})" if job else "")


def holder(folder: Path) -> Holder | None:
    """Who holds the lease of a state folder, or None."""
    newest = max(_files(folder), key=_number, default=None)
    if newest is None:
        return None
    try:
        text = newest.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # given back at this moment
    try:
        about = json.loads(text)
    except json.JSONDecodeError:
        about = {}
    return Holder(newest, _number(newest), text, about if isinstance(about, dict) else {})


def machine() -> str:
    """This machine since its last start, and its process numbers: containers count their own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def gone(found: Holder) -> bool:
    """Whether the holder is known to be dead, without waiting."""
    about = found.about
    if about.get("machine") == machine():
        return about.get("born") is None or born(int(about.get("pid", 0))) != about["born"]
    # Slurm starts a requeued job when its earlier processes have ended
    job = os.environ.get("SLURM_JOB_ID")
    return job is not None and about.get("slurm_job") == job


def born(pid: int) -> float | None:
    """When a process of this machine was started, in whatever unit; None where there is none.

    Tells a process from a later one of its number. The clock may jump meanwhile: where there is /proc
    it is counted in ticks since the machine's start.
    """
    import psutil

    if not Path("/proc/self/stat").exists():
        try:
            return float(psutil.Process(pid).create_time())
        except psutil.Error:
            return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else float(fields[19])


class Lease:
    """`with Lease(folder) as lease:` waits for the lease of a state folder, holds it and gives it back."""

    def __init__(
        self, folder: Path, until: Callable[[], bool] = lambda: False, *,
        beat: float = BEAT, stale: float = STALE, poll: float = POLL,
    ) -> None:  # fmt: skip
        """until: asked while waiting; once it is true there is no need of the lease (see `held`)."""
        self.folder, self.until = folder, until
        self.beat, self.stale, self.poll = beat, stale, poll
        self.held = False
        self.path: Path | None = None
        self.about: dict[str, Any] = {
            "token": uuid.uuid4().hex, "host": socket.gethostname(), "machine": machine(), "pid": os.getpid(),
            "born": born(os.getpid()), "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "since": time.time(), "count": 0,
        }  # fmt: skip
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Lease:
        """Raises Preempted when asked to stop while waiting, UserError where the folder cannot be written."""
        self.held = self._acquire()
        if self.held:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self.held:
            self._thread.join()
            if self._mine():
                _drop(self.path)
        self.held = False

    def tell(self, **about: Any) -> None:
        """Say more of the holder, with its next count: how far it is, for whoever looks."""
        self.about = {**self.about, **about}

    def check(self) -> None:
        """Raises UserError when another process has taken the lease over: before anything is written."""
        if self.held and not self._mine():
            found = holder(self.folder)
            raise UserError(
                f"{self.folder}: this process stood still for over {self.stale:.0f} s, passed for dead, "
                f"and the run was taken over by {found or 'another process, which has ended'}; stopping here"
            )

    def _acquire(self) -> bool:
        seen, since, said = "", time.monotonic(), False
        while not self.until():
            stopping.check()
            found = holder(self.folder)
            if found and found.text != seen:
                seen, since = found.text, time.monotonic()
            if found is None or gone(found) or time.monotonic() - since > self.stale:
                if self._create(found):
                    return True
                time.sleep(random.uniform(0, self.poll))
                continue
            if not said:
                print(f"waiting: {found} works on this run; its result will be used", flush=True)
                said = True
            time.sleep(self.poll)
        return False

    def _create(self, old: Holder | None) -> bool:
        path = self.folder / f"lease-{old.number + 1 if old else 1}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        self.path = path
        self._write()
        # whoever came in at the same moment under another number: both step back
        if set(_files(self.folder)) - {path, *([old.path] if old else [])}:
            _drop(path)
            return False
        if old:
            print(f"taking over: {old} ended without giving this run back", flush=True)
            _drop(old.path)
        return True

    def _count(self) -> None:
        while not self._ended.wait(self.beat):
            self.tell(count=self.about["count"] + 1)
            # a full disk or a server away for a while: the lease may go stale, and `check` will tell
            with contextlib.suppress(OSError):
                if self._mine():
                    self._write()

    def _write(self) -> None:
        assert self.path is not None
        text = json.dumps(self.about).ljust(SIZE - 1) + "\n"
        # in place, and only if it is still there: to create it anew would take the lease back
        with open(self.path, "r+b") as handle:
            handle.write(text.encode())

    def _mine(self) -> bool:
        assert self.path is not None
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError:
            return False
        return f'"{self.about["token"]}"' in text


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("lease-*") if path.name[6:].isdigit()]


def _number(path: Path) -> int:
    return int(path.name[6:])


def _drop(path: Path | None) -> None:
    if path is not None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

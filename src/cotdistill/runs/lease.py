"""Let one process at a time write a run: a lease in its state folder, safe where machines share the disk.

A lease is a file `lease-<n>`, created exclusively, in which its holder counts up every few seconds. A
waiter takes over, as n + 1, when the count stands still on the waiter's own clock (clocks of machines
need not agree). It does so at once when the holder is known to have ended: a process of this machine that
is gone, or one of an earlier start of this Slurm job. A holder that was only asleep finds its file gone, and
stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cotdistill.common import stopping
from cotdistill.common.errors import UserError

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


def find_holder(folder: Path) -> Holder | None:
    """Return who holds the lease of a state folder, or None."""
    return max(list_holders(folder), key=lambda found: found.number, default=None)


def list_holders(folder: Path) -> list[Holder]:
    """Return all lease files of a state folder: more than one where holders died, or for a moment."""
    return [found for path in _files(folder) if (found := _read(path))]


def _read(path: Path) -> Holder | None:
    try:
        with open(path, "rb") as handle:
            text = handle.read(4 * SIZE).decode(errors="replace")
    except FileNotFoundError:
        return None  # given back at this moment
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = {}
    return Holder(path, _number(path), text, about if isinstance(about, dict) else {})


def name_machine() -> str:
    """Return a name of this machine since its last start, and of its process numbers: containers differ."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def is_gone(found: Holder) -> bool:
    """Return whether the holder is known to be dead, without waiting."""
    about = found.about
    if about.get("machine") == name_machine():
        pid = about.get("pid")
        since = read_start(pid) if isinstance(pid, int) else 0.0
        return isinstance(pid, int) and (since is None or since != about.get("born"))
    # Slurm starts a job again when its earlier processes have ended; those of one start may well live, on
    # another node (`srun -N2`) or in another container
    own = _read_slurm_job()
    same = own["slurm_job"] is not None and all(
        about.get(key) == own[key] for key in ("slurm_job", "slurm_cluster")
    )
    before, now = about.get("slurm_start"), own["slurm_start"]
    return same and now is not None and isinstance(before, int) and before < now


def is_alive(found: Holder) -> bool:
    """Return whether a holder still counts: known of this machine, else told by the file's age."""
    if is_gone(found):
        return False
    try:
        return abs(time.time() - found.path.stat().st_mtime) < STALE
    except OSError:
        return False


def _read_slurm_job() -> dict[str, Any]:
    """Return the Slurm job that this process is part of, and when it was started, where Slurm says so.

    `slurm_start` is in seconds since 1970; Slurm before 23.02 does not tell it.
    """
    start = os.environ.get("SLURM_JOB_START_TIME", "")
    return {
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_cluster": os.environ.get("SLURM_CLUSTER_NAME"),
        "slurm_start": int(start) if start.isascii() and start.isdigit() else None,
    }


def read_start(pid: int) -> float | None:
    """Return when a process of this machine was started, in whatever unit; None where there is none.

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
        what: str = "run", beat: float = BEAT, stale: float = STALE, poll: float = POLL,
    ) -> None:  # fmt: skip
        """until: asked while waiting; once it is true there is no need of the lease (see `held`).

        what: the word for what is held, in messages.
        """
        self.folder, self.until, self.what = folder, until, what
        self.beat, self.stale, self.poll = beat, stale, poll
        self.held = False
        self.path: Path | None = None
        self.about: dict[str, Any] = {
            "token": uuid.uuid4().hex, "host": socket.gethostname(), "machine": name_machine(),
            "pid": os.getpid(), "born": read_start(os.getpid()), **_read_slurm_job(),
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
            self._give_back()
        self.held = False

    def tell(self, **about: Any) -> None:
        """Say more of the holder, with its next count: how far it is, for whoever looks."""
        self.about = {**self.about, **about}

    def check(self) -> None:
        """Raises UserError when another process has taken the lease over: before anything is written."""
        if self.held and not self._mine():
            found = find_holder(self.folder)
            raise UserError(
                f"{self.folder}: this process stood still for over {self.stale:.0f} s, passed for dead, "
                f"and the run was taken over by {found or 'another process, which has ended'}; stopping here"
            )

    def _acquire(self) -> bool:
        seen: dict[Path, tuple[str | None, float]] = {}
        said = False
        while not self.until():
            stopping.check()
            found, now = list_holders(self.folder), time.monotonic()
            before, seen = seen, {}
            for old in found:
                text, since = before.get(old.path, (None, now))
                seen[old.path] = (old.text, since if text == old.text else now)
            alive = [old for old in found if not is_gone(old) and now - seen[old.path][1] <= self.stale]
            if not alive:
                if self._create(found):
                    return True
                time.sleep(random.uniform(0, self.poll))
                continue
            if not said:
                print(f"waiting: {alive[0]} works on this {self.what}; its result will be used", flush=True)
                said = True
            time.sleep(self.poll)
        return False

    def _create(self, dead: list[Holder]) -> bool:
        """Take the lease over from `dead` holders (none: take it first); False where another was quicker."""
        path = self.folder / f"lease-{max((old.number for old in dead), default=0) + 1}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        self.path = path
        try:
            self._write()
        except FileNotFoundError:
            return False  # an empty file passed for that of a dead holder
        except OSError as error:
            _drop(path)
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        if self._has_rival(dead):
            self._give_back()
            return False
        for old in dead:
            print(f"taking over: {old} ended without giving this {self.what} back", flush=True)
            _drop(old.path)
        return True

    def _has_rival(self, dead: list[Holder]) -> bool:
        """Return whether another process came in meanwhile, by a new file or by that of a dead holder."""
        texts = {old.path: old.text for old in dead}
        others = [found for found in list_holders(self.folder) if found.path != self.path]
        return any(texts.get(found.path) != found.text for found in others)

    def _give_back(self) -> None:
        if self._mine():
            _drop(self.path)

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
        found = _read(self.path)
        return found is not None and f'"{self.about["token"]}"' in found.text


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("lease-*") if re.fullmatch("[0-9]{1,18}", path.name[6:])]


def _number(path: Path) -> int:
    return int(path.name[6:])


def _drop(path: Path | None) -> None:
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink()

"""Let one call at a time run a grid: name who else does, and tell the lock of a killed Snakemake."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.runs.lease import Holder, Lease, find_holder, is_alive

FOLDER = "logs"
"""folder of an experiment that has the lease of whoever runs it"""
HELD = "COTDISTILL_HELD"
"""environment variable: the folder of the lease that a process above this one holds"""
LOCKS = Path(".snakemake", "locks")
"""Snakemake's locks: files of the current folder with the paths that a Snakemake reads and writes"""


@contextlib.contextmanager
def hold(experiment: Experiment, wait: bool = False) -> Iterator[None]:
    """Hold the grid for the block. Where another call holds it: wait for that, or raise UserError.

    A Snakemake that the block starts does not hold it again.
    """
    folder = experiment.folder / FOLDER

    def is_held() -> bool:
        found = find_holder(folder)
        return not wait and found is not None and is_alive(found)

    with Lease(folder, is_held, what="grid") as lease:
        if not lease.held:
            raise UserError(f"{experiment.folder}: {_describe(find_holder(folder))}")
        os.environ[HELD] = os.path.abspath(folder)
        try:
            yield
        finally:
            del os.environ[HELD]


def hold_until_exit(experiment: Experiment) -> None:
    """Hold the grid until this process ends, where the call that started it does not. Raises UserError."""
    if os.environ.get(HELD) == os.path.abspath(experiment.folder / FOLDER):
        return
    stack = contextlib.ExitStack()
    stack.enter_context(hold(experiment))
    atexit.register(stack.close)


def _describe(holder: Holder | None) -> str:
    if holder is None:
        return "another call ran this grid until this moment; start again"
    since = holder.about.get("since")
    began = f" since {_format_time(since)}" if isinstance(since, (int, float)) else ""
    place = "" if holder.about.get("host") == socket.gethostname() else f" on {holder.about.get('host', '?')}"
    return (
        f"another call runs this grid ({holder}{began}); wait for it (--wait does), "
        f"or stop it{place}: kill {holder.about.get('pid', '?')}"
    )


def _format_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def is_locked(experiment: Experiment) -> bool:
    """Return whether files of the experiment are locked by a Snakemake of this folder, living or killed."""
    inside = f"{experiment.folder}{os.sep}"
    for path in LOCKS.glob("*.lock"):
        with contextlib.suppress(OSError):  # given back at this moment
            if any(line.startswith(inside) for line in path.read_text(errors="replace").splitlines()):
                return True
    return False


def check_no_snakemake() -> None:
    """Raises UserError where a Snakemake works in this folder: its lock must not be taken away."""
    from cotdistill.orchestration.doctor.local import find_snakemakes

    if running := find_snakemakes():
        pid = running[0]
        raise UserError(
            f"a snakemake works in this folder (process {pid} on {socket.gethostname()}{_tell_start(pid)}); "
            f"wait for it, or stop it: kill {pid}"
        )


def _tell_start(pid: int) -> str:
    """Return since when a process of this machine runs, as text; empty where it has ended meanwhile."""
    import psutil

    try:
        return f" since {_format_time(psutil.Process(pid).create_time())}"
    except psutil.Error:
        return ""

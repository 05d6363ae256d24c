"""A job as a guest of a machine: asked to stop, alone on its run, one of several processes, requeued."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cotdistill.common import stopping
from cotdistill.jobs import requeue

if TYPE_CHECKING:
    from pathlib import Path

    from cotdistill.runs.grid import Run


@contextlib.contextmanager
def of(run: Run) -> Iterator[None]:
    """Within the block signals ask to stop, and a failure is left in the run's folder for `status`.

    A time limit that comes near (SIGUSR1) has Slurm start the job again.
    """
    worker = "RANK" in os.environ  # of a launched job: its parent speaks for it
    stopping.listen(hurry=not worker)
    if "SLURM_JOB_ID" in os.environ:
        print(f"{run.id}: {_where()}", flush=True)
    try:
        yield
    except stopping.Preempted as stopped:
        if stopping.asked() == signal.SIGUSR1 and not worker:
            print(f"stopped: {stopped}", file=sys.stderr, flush=True)
            requeue.requeue()
        raise
    except Exception as error:
        _leave(run, f"{error}" or type(error).__name__)
        raise
    with contextlib.suppress(OSError):  # there is none, or the folder is read-only: all was done before
        _failure(run).unlink()


def failure(run: Run) -> str | None:
    """The error that the run's last job ended with, if it ended with one."""
    try:
        return _failure(run).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _failure(run: Run) -> Path:
    return run.files.failure


def _leave(run: Run, text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the error that it is
        run.folder.mkdir(parents=True, exist_ok=True)
        _failure(run).write_text(f"{text.splitlines()[0] if text else text}\n", encoding="utf-8")


def _where() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    job = os.environ["SLURM_JOB_ID"]
    return f"started {now} on {socket.gethostname()}, process {os.getpid()}, Slurm job {job}"

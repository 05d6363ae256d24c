"""Have a job behave as a guest of its machine: stop when asked, be requeued, leave the error that it met."""

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
from cotdistill.common.errors import describe_shortage
from cotdistill.jobs import requeue

if TYPE_CHECKING:
    from cotdistill.runs.grid import Run


@contextlib.contextmanager
def guard(run: Run) -> Iterator[None]:
    """Have signals ask the block to stop, and leave its failure in the run's folder for `status`.

    A time limit that comes near (SIGUSR1) has Slurm start the job again.
    """
    worker = "RANK" in os.environ  # of a launched job: its parent speaks for it
    stopping.listen(hurry=not worker)
    if "SLURM_JOB_ID" in os.environ:
        print(f"{run.id}: {_describe_start()}", flush=True)
    try:
        yield
    except stopping.Preempted as stopped:
        if stopping.get_signal() == signal.SIGUSR1 and not worker:
            print(f"stopped: {stopped}", file=sys.stderr, flush=True)
            requeue.requeue()
        raise
    except Exception as error:
        _leave(run, describe_shortage(error) or f"{error}" or type(error).__name__)
        raise
    with contextlib.suppress(OSError):  # there is none, or the folder is read-only: all was done before
        run.files.failure.unlink()


def read_failure(run: Run) -> str | None:
    """Return the error that the run's last job ended with, if it ended with one."""
    try:
        return run.files.failure.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _leave(run: Run, text: str) -> None:
    """Write an error to the run's folder, its first line alone."""
    with contextlib.suppress(OSError):  # a full disk must not hide the error that it is
        run.folder.mkdir(parents=True, exist_ok=True)
        run.files.failure.write_text(f"{text.splitlines()[0] if text else text}\n", encoding="utf-8")


def _describe_start() -> str:
    """Return when and where this process was started, for the log of a Slurm job."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    job = os.environ["SLURM_JOB_ID"]
    return f"started {now} on {socket.gethostname()}, process {os.getpid()}, Slurm job {job}"

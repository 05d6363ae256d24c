"""Requests to stop, which come as signals from Slurm (preemption, time limit), Snakemake or a person."""

from __future__ import annotations

import signal
from types import FrameType

PREEMPTED = 75
"""exit code of a job that was asked to stop and can go on (EX_TEMPFAIL of sysexits.h: try again later)"""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_asked: signal.Signals | None = None


class Preempted(Exception):
    """The job was asked to stop. All that it needs to continue later is saved."""


def listen(hurry: bool = True) -> None:
    """Remember SIGTERM, SIGUSR1 and SIGINT instead of ending at once: `get_signal` and `check` tell of them.

    hurry: a second SIGINT (an impatient person) interrupts at once.
    """

    def remember(number: int, frame: FrameType | None) -> None:
        global _asked
        if hurry and _asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        _asked = signal.Signals(number)

    for number in SIGNALS:
        signal.signal(number, remember)


def get_signal() -> signal.Signals | None:
    """Return the signal that asked this process to stop; None where none did."""
    return _asked


def check() -> None:
    """Raise Preempted where a signal has asked to stop. For places where nothing needs saving."""
    if _asked is not None:
        raise Preempted(f"stopped by {_asked.name}")


def forget() -> None:
    """Forget a request to stop, so that work continues."""
    global _asked
    _asked = None

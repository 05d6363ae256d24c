"""Being asked to stop: by Slurm (preemption, a time limit that comes near), by Snakemake, or by a person."""

from __future__ import annotations

import signal
from types import FrameType

PREEMPTED = 75
"""exit code of a job that was asked to stop and can go on (EX_TEMPFAIL of sysexits.h: try again later)"""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_asked: signal.Signals | None = None


class Preempted(Exception):
    """The job was asked to stop. It left everything that it needs to go on."""


def listen(hurry: bool = True) -> None:
    """Remember SIGTERM, SIGUSR1 and SIGINT instead of dying of them; whoever works asks `asked()`.

    hurry: a second SIGINT (an impatient person) interrupts at once.
    """

    def remember(number: int, frame: FrameType | None) -> None:
        global _asked
        if hurry and _asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        _asked = signal.Signals(number)

    for number in SIGNALS:
        signal.signal(number, remember)


def asked() -> signal.Signals | None:
    """The signal that asked this process to stop, if any did."""
    return _asked


def check() -> None:
    """Raises Preempted where a signal has asked to stop: for places where nothing needs saving."""
    if _asked is not None:
        raise Preempted(f"stopped by {_asked.name}")


def forget() -> None:
    """Work on after having been asked to stop."""
    global _asked
    _asked = None

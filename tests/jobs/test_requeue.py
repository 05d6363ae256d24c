"""A time limit that comes near: the job saves, and asks Slurm to start it again (`scontrol` is a script)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.jobs import requeue
from cotdistill.runs.grid import Run

SOON = "import cotdistill.jobs.requeue as requeue\nrequeue.WAIT = 0.5\n"


@pytest.fixture
def scontrol(tmp_path: Path) -> Callable[[str], str]:
    """Put a `scontrol` that keeps its arguments, then does what is said, on a PATH; returns the PATH."""

    def write(then: str) -> str:
        script = tmp_path / "bin" / "scontrol"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n{then}\n')
        script.chmod(0o755)
        return f"{script.parent}{os.pathsep}{os.environ['PATH']}"

    return write


def stopped(at: Any, sent: signal.Signals, **environment: str) -> int:
    pid = at.start(pause=0.2, first=SOON, SLURM_JOB_ID="123", **environment)
    at.until(lambda: len(at.steps()) >= 2)
    os.kill(pid, sent)
    return int(at.end(pid))


@pytest.mark.slow
def test_a_time_limit_that_comes_near_has_the_job_started_again(
    bench: Any, tmp_path: Path, scontrol: Callable[[str], str], whole: Run, numbers: Callable[[Run], Any]
) -> None:
    at = bench()
    assert stopped(at, signal.SIGUSR1, PATH=scontrol("exit 0")) == 75, at.said()
    assert (tmp_path / "asked").read_text() == "requeue 123\n"
    lines = at.said().splitlines()
    assert f"{at.run.id}: started " in lines[0] and "Slurm job 123" in lines[0]
    assert "Slurm job 123 will be started again, to go on from here" in lines
    assert any(line.startswith(f"stopped: {at.run.id}: stopped by SIGUSR1, saved at step ") for line in lines)
    again = at.start("again", SLURM_JOB_ID="123", SLURM_RESTART_COUNT="1")
    assert at.end(again) == 0, at.said("again")
    assert "going on from step" in at.said("again")
    assert numbers(at.run) == numbers(whole)


@pytest.mark.slow
def test_where_slurm_refuses_the_job_ends_at_once(
    bench: Any, tmp_path: Path, scontrol: Callable[[str], str]
) -> None:
    at = bench()
    assert stopped(at, signal.SIGUSR1, PATH=scontrol("echo Requeue is disabled >&2; exit 1")) == 75
    assert (tmp_path / "asked").read_text() == "requeue 123\n"
    assert "Slurm does not requeue job 123: Requeue is disabled\n" in at.said()
    assert at.saved() and "Traceback" not in at.said()


@pytest.mark.slow
def test_a_job_that_is_cancelled_is_not_started_again(
    bench: Any, tmp_path: Path, scontrol: Callable[[str], str]
) -> None:
    at = bench()
    assert stopped(at, signal.SIGTERM, PATH=scontrol("exit 0")) == 75
    assert not (tmp_path / "asked").exists()


def test_a_controller_that_does_not_answer_is_not_waited_for_for_ever(
    scontrol: Callable[[str], str], monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("PATH", scontrol("exec sleep 600"))
    monkeypatch.setattr(requeue, "ANSWER", 0.3)
    started = time.monotonic()
    assert not requeue.requeue() and time.monotonic() - started < 30
    assert "Slurm does not requeue job 9: " in capsys.readouterr().out


def test_outside_of_slurm_nothing_is_asked(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not requeue.requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not requeue.requeue() and capsys.readouterr().out == ""

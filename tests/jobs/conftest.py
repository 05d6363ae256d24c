"""Runs in processes of their own, slow enough to be caught at work, each step noted as it is made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.runs.grid import Run

# executed before the command: each step takes a moment, and says which process made it
SLOW = """
import os, time
from cotdistill.training.trainer import Trainer
original = Trainer.take_step
def step(self, number):
    with open({notes!r}, "a") as handle:
        handle.write(f"{{number}} {{os.getpid()}}\\n")
    result = original(self, number)
    time.sleep({pause})
    return result
Trainer.take_step = step
"""


class Bench:
    """One tiny run and the processes that train it."""

    def __init__(self, forks: Any, root: Path, config: Path, run: Run) -> None:
        self.forks, self.root, self.config, self.run = forks, root, config, run
        self.notes = root / "steps.txt"
        self.started: list[int] = []

    def start(self, log: str = "log", pause: float = 0.05, first: str = "", **environment: str) -> int:
        """Start `cotdistill train`; returns its pid."""
        slow = SLOW.format(notes=str(self.notes), pause=pause)
        command = ("train", "--config", self.config, "--run", self.run.id)
        pid: int = self.forks(*command, log=self.root / log, first=slow + first, **environment)
        self.started.append(pid)
        return pid

    def evaluate(self, log: str = "log", first: str = "") -> int:
        """`cotdistill evaluate`, to its end; returns its exit code."""
        command = ("evaluate", "--config", self.config, "--run", self.run.id)
        return self.end(self.forks(*command, log=self.root / log, first=first))

    def end(self, pid: int) -> int:
        """The exit code of a process, when it has ended."""
        return int(self.forks.wait(pid))

    def said(self, log: str = "log") -> str:
        """What the processes with this log said."""
        path = self.root / log
        return path.read_text(errors="replace") if path.exists() else ""

    def steps(self) -> list[tuple[int, int]]:
        """Step and process of each step made, in their order."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [(int(step), int(pid)) for step, pid in map(str.split, lines)]

    def until(self, true: Callable[[], Any], seconds: float = 60) -> None:
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.said()
            time.sleep(0.005)

    def saved(self) -> list[int]:
        """The steps of the states on disk."""
        return sorted(int(path.name[5:]) for path in self.run.folder.glob("state/*/step-*"))


@pytest.fixture
def bench(forks: Any, tiny: Any, tmp_path: Path) -> Callable[..., Bench]:
    """Make a bench of a run of the tiny experiment: `bench(method, **settings)`."""

    def make(method: str = "mi", **more: Any) -> Bench:
        more = {"evaluation": {"rationales": True}, **more}
        config, run = tiny.config_file(tmp_path, method, **more)
        return Bench(forks, tmp_path, config, run)

    return make


@pytest.fixture
def whole(trained: Callable[[str], Run], tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Run:
    """The run that `bench()` makes, never disturbed."""
    run = trained("mi")
    root = tmp_path_factory.mktemp("whole")
    copy: Run = tiny.run(root, "mi", evaluation={"rationales": True})
    shutil.copytree(run.folder, copy.folder)
    return copy

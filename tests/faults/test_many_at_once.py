"""More runs at once than cores, and clocks that jump: each run ends in the bits that it has alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cotdistill.runs.experiment import load
from cotdistill.runs.grid import Run, expand

GRID = {"methods": ["dss", {"name": "mi", "method": "mi"}], "seeds": [0, 1, 2, 3]}
# the clock of a process is off by a day more, or less, each time it is read
CLOCK = """
import time
exact, reads = time.time, [0]
def jumping():
    reads[0] += 1
    return exact() + 86400 * {days} * (-1) ** reads[0] * reads[0]
time.time = jumping
"""
DIE = """
import os
from cotdistill.training.trainer import Trainer
alive = Trainer.take_step
Trainer.take_step = lambda self, step: os._exit(9) if step == 8 else alive(self, step)
"""


def grid(tiny: Any, results: Path) -> tuple[Path, list[Run]]:
    """A grid of eight runs, prepared, and its config file."""
    values = {**tiny.config(results, steps=3, eval_every=3), **GRID}
    path = results / "config.yaml"
    results.mkdir()
    path.write_text(yaml.safe_dump(values))
    runs = expand(load(path))
    shutil.copytree(tiny.prepared, runs[0].prepared)
    return path, runs


@pytest.mark.slow
def test_eight_runs_at_once_end_as_one_by_one(
    forks: Any, tiny: Any, tmp_path: Path, numbers: Callable[[Run], Any]
) -> None:
    config, runs = grid(tiny, tmp_path / "at once")
    assert len(runs) == 8
    pids = [forks("train", "--config", config, "--run", run.id, log=tmp_path / "log") for run in runs]
    assert [forks.wait(pid) for pid in pids] == [0] * 8, (tmp_path / "log").read_text()
    config, alone = grid(tiny, tmp_path / "alone")
    assert all(numbers(run) for run in runs)
    for run, other in [*zip(runs, alone, strict=True)][::3]:  # not all, for the time it takes
        assert forks.wait(forks("train", "--config", config, "--run", other.id, log=tmp_path / "log")) == 0
        assert numbers(run) == numbers(other), run.id


@pytest.mark.slow
def test_clocks_that_jump_change_no_number(
    forks: Any, tiny: Any, tmp_path: Path, trained: Callable[[str], Run], numbers: Callable[[Run], Any]
) -> None:
    config, run = tiny.config_file(tmp_path, "mi", evaluation={"rationales": True})
    log, more = tmp_path / "log", ("--config", config, "--run", run.id)
    assert forks.wait(forks("train", *more, log=log, first=CLOCK.format(days=1) + DIE)) == 9
    for path in [*run.folder.rglob("*"), *run.prepared.rglob("*")]:
        os.utime(path, (4e9, 4e9))  # in 2096
    for command in ("train", "evaluate"):
        assert forks.wait(forks(command, *more, log=log, first=CLOCK.format(days=-1))) == 0, log.read_text()
    assert "going on from step 5" in log.read_text()
    assert numbers(run) == numbers(trained("mi"))

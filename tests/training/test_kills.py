"""Real training processes, killed at random points and again and again, end in the same bits."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cotdistill.methods import METHODS
from cotdistill.runs.grid import Run

SIZES = {"steps": 40, "eval_every": 10, "log_every": 3, "checkpoint_every": 4, "batch_size": 4}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, signal.SIGINT]
KILLS = 5
"""of each method's run in training, beside the deaths at named places"""
TRIES = 20
"""starts of a run at most: some end before they are killed"""


def states(run: Run) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in run.state.glob("step-*"))


def end(forks: Any, config: Path, run: Run, log: Path, first: str = "") -> int:
    return forks.wait(forks("train", "--config", config, "--run", run.id, log=log, first=first))


def wait_for_state(run: Run, seen: list[int]) -> None:
    """Until the run has saved a state more than `seen`, or has ended."""
    until, marker = time.monotonic() + 60, run.folder / "training.json"
    while states(run) == seen and time.monotonic() < until and not marker.exists():
        time.sleep(0.001)


def kill_at_random(
    forks: Any, config: Path, run: Run, log: Path, dice: random.Random, sent: Any, span: float
) -> int:
    """Start the run and kill it after a random part of `span` seconds; returns the exit code."""
    seen = states(run)
    pid = forks("train", "--config", config, "--run", run.id, log=log)
    # at times at once, most often when it is under way
    if dice.random() < 0.8:
        wait_for_state(run, seen)
    time.sleep(dice.uniform(0, span))
    os.kill(pid, sent)
    return forks.wait(pid)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS.names())
def test_killed_at_random_points_a_run_ends_in_the_same_bits(
    forks: Any, tiny: Any, tmp_path: Path, method: str, numbers: Any, record_property: Any
):
    dice = random.Random(method)
    more = {**SIZES, "evaluation": {"rationales": True}}
    whole_config, whole = tiny.config_file(tmp_path / "whole", method, **more)
    config, run = tiny.config_file(tmp_path / "killed", method, **more)
    log, points, hits = tmp_path / "log", [], 0
    pid = forks("train", "--config", whole_config, "--run", whole.id, log=log)
    wait_for_state(whole, [])
    under_way = time.monotonic()
    assert forks.wait(pid) == 0, log.read_text()
    span = (time.monotonic() - under_way) / KILLS
    while hits < KILLS and len(points) < TRIES:
        sent = SIGNALS[hits % len(SIGNALS)]
        code = kill_at_random(forks, config, run, log, dice, sent, span)
        points.append((sent.name, code, states(run)))
        # before it listens a signal ends it, which of an interrupt Python makes 130
        assert code in (130 if sent == signal.SIGINT else -sent, 75, 0), log.read_text()
        # one more than are kept, where it was killed between writing a state and dropping the oldest
        assert len(states(run)) <= (3 if sent == signal.SIGKILL else 2) and not (code == 0 and states(run))
        hits += code != 0
        if code == 0:  # too late: from the start again
            shutil.rmtree(run.folder)
    record_property("kills", points)
    print(method, points)
    assert hits == KILLS, f"too few kills hit a run in training: {points}"
    assert end(forks, config, run, log) == 0, log.read_text()
    assert numbers(run) == numbers(whole)
    assert not [path for path in run.folder.rglob(".*")], "nothing half-written is left"


# a process dies by SIGKILL when it calls the function for the n-th time
PLACES = {
    "in the first state, weights alone written": ("cotdistill.runs.state", "_flatten_moments", 1),
    "in the second state, before its description": ("cotdistill.runs.state", "hash_file", 5),
    "with a state whole, before its rename": ("cotdistill.common.files", "_sync", 10),
    "with a state renamed, before the folder is synced": ("cotdistill.common.files", "_sync_folder", 9),
    "while old states are dropped": ("shutil", "rmtree", 2),
    "in the best checkpoint": ("cotdistill.common.files", "_sync", 2),
    "with a best checkpoint whole that no state knows of": ("cotdistill.training.trainer", "hash_tree", 1),
    "while the outputs are written": ("cotdistill.jobs.environment", "describe", 1),
    "while the outputs are put in place": ("cotdistill.runs.outputs", "link", 4),
    "before the states are dropped": ("cotdistill.runs.outputs", "sweep", 1),
    "while test is answered": ("cotdistill.runs.answers", "store", 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_bad_moment_a_run_ends_in_the_same_bits(
    forks: Any, tiny: Any, tmp_path: Path, place: str, numbers: Any, at_call: Any, trained: Any
):
    module, name, count = PLACES[place]
    config, run = tiny.config_file(tmp_path, "mi", evaluation={"rationales": True})
    log = tmp_path / "log"
    first = at_call(module, name, count, "os.kill(os.getpid(), signal.SIGKILL)")
    assert end(forks, config, run, log, first) == -signal.SIGKILL, f"never came there: {log.read_text()}"
    assert end(forks, config, run, log) == 0, log.read_text()
    found = numbers(run)
    assert not [path for path in run.folder.rglob(".*")], "nothing half-written is left"
    assert found == numbers(trained("mi"))

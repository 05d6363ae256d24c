"""Trackers that are killed, that start at once, and that cannot write: the store is as one call leaves it."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cotdistill.config.models import Experiment
from cotdistill.tables.collect import collect
from cotdistill.tracking import store

pytestmark = pytest.mark.slow


def test_killed_anywhere_the_next_call_completes_it(
    grid: Experiment, warm: Any, expected: Any, empty_store: Path, config_of: Any, content: Any
) -> None:
    assert len(expected) == 6 and {run["info"][0] for run in expected.values()} == {"FINISHED"}
    config, _ = config_of(grid)
    began = time.monotonic()
    warm.track(config).done()
    whole = time.monotonic() - began
    moments, cut, number = random.Random(17), 0, 0
    while cut < 8 and number < 16:
        number += 1
        database = shutil.copy(empty_store, Path(grid.results, f"{number}.db"))
        config, experiment = config_of(grid, f"sqlite:///{database}")
        for _ in range(2):  # the completion may be killed as well
            tracker = warm.track(config)
            time.sleep(moments.uniform(0.05, 0.9) * whole)
            if tracker.kill() != -signal.SIGKILL:
                whole *= 0.8  # that was too late: calls are faster than the first was
                break
            cut += 1
        warm.track(config).done()
        assert content(experiment) == expected, f"after {cut} kills, in store {number}"
    assert cut >= 8, "hardly any call was killed before its end"


def test_killed_while_it_lays_out_the_store_the_next_call_completes_it(
    grid: Experiment, expected: Any, warm: Any, start: Any, config_of: Any, content: Any, until: Any
) -> None:
    config, experiment = config_of(grid)
    database = Path(grid.results, "mlflow.db")
    database.unlink()
    process = start("-m", "cotdistill", "track", "--config", config)  # from cold, as a user starts it
    until(lambda: list(database.parent.glob(".mlflow.db.*/mlflow.db")))
    time.sleep(0.2)
    process.kill()
    process.communicate()
    assert not database.exists(), "killed too late"
    tracker = warm.track(config)
    until(database.exists)
    time.sleep(0.2)
    tracker.kill()
    warm.track(config).done()
    assert content(experiment) == expected
    assert not list(database.parent.glob(".mlflow.db.*")), "what the first call left is still there"


@pytest.mark.parametrize("count", [2, 4])
def test_at_once_on_one_store_they_write_what_one_writes(
    count: int, grid: Experiment, expected: Any, warm: Any, config_of: Any, content: Any
) -> None:
    config, experiment = config_of(grid)
    printed = [tracker.done() for tracker in [warm.track(config) for _ in range(count)]]
    assert content(experiment) == expected
    assert sum("added 4" in text for text in printed) == 1
    assert sum("unchanged 4" in text for text in printed) == count - 1


def test_two_experiments_at_once_on_a_store_that_does_not_exist(
    grid: Experiment, made: Any, expected: Any, warm: Any, config_of: Any, content: Any, tmp_path: Path
) -> None:
    other = made(experiment="other", datasets=["svamp"], methods=["dss"], seeds=[0], steps=20)
    collect(other)
    uri = f"sqlite:///{tmp_path / 'new folder' / 'shared.db'}"
    (first, experiment), (second, other) = config_of(grid, uri), config_of(other, uri)
    for tracker in [warm.track(config) for config in (first, second, first)]:
        tracker.done()
    assert content(experiment) == expected
    assert len(content(other)) == 2


def test_two_at_once_over_http(
    grid: Experiment, expected: Any, warm: Any, server: Any, config_of: Any, content: Any
) -> None:
    config, experiment = config_of(grid, server.uri)
    for tracker in [warm.track(config) for _ in range(2)]:
        tracker.done()
    assert content(experiment) == expected


# --- stores that cannot be written


def is_one_line(printed: str) -> None:
    (line,) = printed.splitlines()
    assert line.startswith("error: sqlite:///") and "MLflow failed" in line, line


@pytest.mark.parametrize("pages", [1, 100])
def test_a_full_disk_is_one_line(
    pages: int, grid: Experiment, warm: Any, expected: Any, config_of: Any, content: Any
) -> None:
    config, experiment = config_of(grid)
    size = Path(grid.results, "mlflow.db").stat().st_size
    tracker = warm.track(config, limit=4096 if pages == 1 else size)
    assert tracker.wait() == 1
    is_one_line(tracker.log.read_text())
    warm.track(config).done()
    assert content(experiment) == expected, "not completed once there was room"


def test_a_corrupt_store_is_one_line(grid: Experiment, warm: Any, config_of: Any) -> None:
    config, _ = config_of(grid)
    database = Path(grid.results, "mlflow.db")
    torn = bytearray(database.read_bytes())
    torn[4096:] = b"x" * (len(torn) - 4096)  # the head stays that of a SQLite database
    database.write_bytes(torn)
    tracker = warm.track(config)
    assert tracker.wait() == 1
    is_one_line(tracker.log.read_text())


def test_a_read_only_store_is_one_line(grid: Experiment, config_of: Any) -> None:
    config, _ = config_of(grid)
    Path(grid.results, "mlflow.db").chmod(0o444)
    libc = ctypes.CDLL(None)
    drop_from_bounding_set, file_permissions = 24, 1

    def as_everyone() -> None:
        libc.prctl(drop_from_bounding_set, file_permissions, 0, 0, 0)  # root is exempt from permissions

    process = subprocess.run(
        [sys.executable, "-m", "cotdistill", "track", "--config", config], text=True, capture_output=True,
        preexec_fn=as_everyone, env={**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])},
    )  # fmt: skip
    assert process.returncode == 1 and process.stdout == ""
    is_one_line(process.stderr)

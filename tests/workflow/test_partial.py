"""A run that fails beside good ones: the others finish, and everything names the missing one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

MINI = {"d_model": 16, "d_ff": 16, "d_kv": 8, "heads": 2, "layers": 1, "vocabulary": 128}
BAD = "demo/bad/dss/gold/1/0"


@pytest.mark.slow
def test_the_others_finish_and_the_missing_one_is_named(bench: Any) -> None:
    students = [{"name": "mini", "scratch": MINI},
                {"name": "bad", "scratch": MINI, "training": {"learning_rate": 3e38}}]  # fmt: skip
    bench.configure(students=students, methods=["dss"], seeds=[0])
    failed = bench.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert failed.returncode == 1, failed.stdout
    assert f"{BAD}: loss term" in failed.stdout and "try a lower learning rate" in failed.stdout
    assert "missing: 1 of 2 runs are not in these numbers" in failed.stdout
    table = bench.root / "results/tiny/tables/comparison.md"
    assert f"MISSING: 1 of 2 runs are not in these numbers: {BAD}." in table.read_text()
    assert (bench.root / "results/tiny/figures/accuracy.png").is_file()

    status = bench.run("cotdistill", "status", "--config", "tiny.yaml")
    head, *lines = status.stdout.splitlines()
    assert "2 runs: 1 done, 1 failed" in head
    assert len(lines) == 1 and lines[0].startswith(f"failed  {BAD}") and "is not finite at step" in lines[0]

    del students[1]["training"]
    bench.configure(students=students, methods=["dss"], seeds=[0])
    mended = bench.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert mended.returncode == 0, mended.stdout
    assert "MISSING" not in table.read_text() and "missing" not in mended.stdout
    assert table.stat().st_mtime > 0, "what was partial was out of date to Snakemake"
    assert "2 runs: 2 done" in bench.run("cotdistill", "status", "--config", "tiny.yaml").stdout


@pytest.mark.slow
def test_after_snakemake_was_killed_the_same_command_goes_on(bench: Any) -> None:
    long = {"steps": 400, "eval_every": 400, "checkpoint_every": 5}
    bench.configure(methods=["dss"], seeds=[0], training=long)
    command = [sys.executable, "-m", "cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2"]
    first = subprocess.Popen(
        command, cwd=bench.root, env=bench.environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    (run,) = bench.runs()
    state = bench.root / run.folder / "state"
    until = time.monotonic() + 300
    while not list(state.glob("*/step-*")) and time.monotonic() < until and first.poll() is None:
        time.sleep(0.05)
    second = bench.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert second.returncode == 1 and "error: a snakemake works in this folder (process " in second.stdout
    # all of it at once, the training job too
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert list(Path(bench.root, ".snakemake", "locks").glob("*.lock"))
    third = bench.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert third.returncode == 0, third.stdout
    assert "an earlier snakemake was killed here: removing its lock" in third.stdout
    log = (bench.root / "results/tiny/logs/train" / f"{run.id}.log").read_text()
    assert "going on from step" in log

"""A second call on a grid: refused in one line, or it waits; the lock of what was killed is taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from calls import COMMAND, Calls, until

from cotdistill.common.errors import UserError
from cotdistill.orchestration.hold import is_locked
from cotdistill.orchestration.reproduce import _unlock
from cotdistill.orchestration.snakemake import KEPT_LOGS, begin_log
from cotdistill.runs.experiment import load
from cotdistill.runs.lease import Lease, name_machine

LOGS = Path("results/tiny/logs")


@pytest.fixture
def calls(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A grid whose job works for a minute; it fails in the end, so that no results are read."""
    made = Calls(bench)
    made.prepare(seconds=60, code=1)
    monkeypatch.chdir(bench.root)
    return made


def refuse(calls: Calls) -> str:
    """Call again; returns the one line that this is refused with."""
    before = calls.told()
    found = subprocess.run(
        COMMAND, env=calls.bench.environment(), capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 1 and calls.told() == before, "no second Snakemake"
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: ") and not found.stdout
    return line


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=60)


def test_a_second_call_names_the_first(calls: Calls) -> None:
    first = calls.start()
    until(calls.works, "a job that works")
    log = (LOGS / "snakemake.log").resolve()
    line = refuse(calls)
    assert line.startswith(f"error: results/tiny: another call runs this grid (process {first.pid} on ")
    assert f" since {time.strftime('%Y-')}" in line
    assert line.endswith(f"wait for it (--wait does), or stop it: kill {first.pid}")
    assert (LOGS / "snakemake.log").resolve() == log, "the first one's log stays the newest"
    assert list(Path(".snakemake/locks").glob("*")), "and its lock is its own"
    assert not [line for line in calls.told() if "--unlock" in line]
    end(first)
    assert not list(LOGS.glob("lease-*"))


def test_of_calls_at_the_same_moment_one_works(calls: Calls) -> None:
    started = [calls.start() for _ in range(3)]
    until(lambda: sum(process.poll() is not None for process in started) == 2, "two that are refused")
    until(calls.works, "a job that works")
    (left,) = [process for process in started if process.poll() is None]
    for process in started:
        if process is not left:
            out, err = process.communicate()
            assert process.returncode == 1 and not out and err.count("\n") == 1, err
            assert "this grid" in err
    assert sum(line.startswith("snakemake ") and "tiny" in line for line in calls.told()) == 1
    end(left)


def test_wait_goes_on_after_the_first(calls: Calls) -> None:
    first = calls.start()
    until(calls.works, "a job that works")
    second = calls.start("--wait")
    assert second.stdout is not None
    line = second.stdout.readline()
    assert line.startswith(f"waiting: process {first.pid} on ") and "works on this grid" in line
    end(first)
    until(lambda: sum(told.endswith("works") for told in calls.told()) == 2, "the second one's job")
    end(second)


def kill_all(process: subprocess.Popen[str]) -> None:
    found = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in found:
        one.kill()
    process.communicate()
    psutil.wait_procs(found)


def test_what_was_killed_is_taken_over(calls: Calls) -> None:
    first = calls.start()
    until(calls.works, "a job that works")
    kill_all(first)
    assert list(LOGS.glob("lease-*")) and list(Path(".snakemake/locks").glob("*"))
    calls.prepare(code=1)
    found = calls.bench.run(*COMMAND[2:])
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"taking over: process {first.pid} on ")
    assert lines[1] == "an earlier snakemake was killed here: removing its lock"
    assert sum("--unlock" in line for line in calls.told()) == 1
    assert not list(LOGS.glob("lease-*"))


def test_a_snakemake_that_outlived_its_call_keeps_its_lock(calls: Calls) -> None:
    first = calls.start()
    until(calls.works, "a job that works")
    snakemake = psutil.Process(first.pid).children()[0]
    first.kill()
    first.communicate()
    found = calls.bench.run(*COMMAND[2:])
    last = found.stdout.splitlines()[-1]
    assert found.returncode == 1
    assert last.startswith(f"error: a snakemake works in this folder (process {snakemake.pid} on ")
    assert list(Path(".snakemake/locks").glob("*"))
    for one in [*snakemake.children(), snakemake]:
        one.kill()


def write_lease(age: float, **about: Any) -> None:
    """Leave the lease of a process of another machine, which counted last `age` seconds ago."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / "lease-1"
    said = {"host": "far", "machine": "another", "pid": 5, "since": 0, "count": 3, **about}
    path.write_text(json.dumps(said).ljust(1023) + "\n")
    os.utime(path, (time.time() - age,) * 2)


def test_a_call_on_another_machine_is_named(calls: Calls) -> None:
    write_lease(age=1)
    line = refuse(calls)
    assert "another call runs this grid (process 5 on far since 1970-01-01 " in line
    assert line.endswith("or stop it on far: kill 5")


def test_a_call_in_slurm_is_named_with_its_job(calls: Calls) -> None:
    write_lease(age=1, slurm_job="77")
    assert "(process 5 on far (Slurm job 77) since 1970-01-01 " in refuse(calls)


def test_a_dead_call_on_another_machine_is_said_and_taken_over(calls: Calls) -> None:
    quick = "BEAT, STALE, POLL = 0.5, 1.5, 0.2"
    calls.bench.edit("runs/lease.py", "BEAT, STALE, POLL = 5.0, 90.0, 1.0", quick)
    calls.prepare(code=1)
    write_lease(age=1000)
    lines = calls.bench.run(*COMMAND[2:]).stdout.splitlines()
    assert lines[0] == "waiting: process 5 on far works on this grid; its result will be used"
    assert lines[1] == "taking over: process 5 on far ended without giving this grid back"


def snakemake_by_hand(calls: Calls) -> subprocess.Popen[bytes]:
    """Start the fake Snakemake as a person would."""
    command = [sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml"]
    return subprocess.Popen(command, env=calls.bench.environment(), stdout=subprocess.DEVNULL)


def test_a_snakemake_by_hand_is_named_and_keeps_its_lock(calls: Calls) -> None:
    by_hand = snakemake_by_hand(calls)
    until(calls.works, "a job that works")
    found = calls.bench.run(*COMMAND[2:])
    assert found.returncode == 1
    assert f"a snakemake works in this folder (process {by_hand.pid} on " in found.stdout
    assert found.stdout.count("\n") == 1 and "LockException" not in found.stdout
    with pytest.raises(UserError, match=f"process {by_hand.pid} on .* since 20.*kill {by_hand.pid}"):
        _unlock(load("tiny.yaml"), Path("unlock.log"), Path("tiny.yaml"))
    assert list(Path(".snakemake/locks").glob("*"))
    by_hand.send_signal(2)
    os.kill(int([line.split()[1] for line in calls.told() if line.endswith("works")][0]), 2)
    by_hand.wait(60)


@pytest.mark.parametrize(
    ("text", "locked"),
    [("results/tiny/results.csv\n", True), ("data/x.json\nresults/tiny/runs/a/metrics.json\n", True),
     ("results/other/results.csv\n", False), ("results/tiny-2/results.csv\n", False), ("", False)],
    ids=["an output", "a later line", "another experiment", "a longer name", "empty"],
)  # fmt: skip
def test_a_lock_concerns_the_experiment_whose_files_it_names(text: str, locked: bool, calls: Calls) -> None:
    path = Path(".snakemake/locks/0.output.lock")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert is_locked(load("tiny.yaml")) is locked


def test_another_experiment_runs_beside(calls: Calls) -> None:
    first = calls.start()
    until(calls.works, "a job that works")
    calls.bench.configure("other.yaml", experiment="other")
    calls.prepare(code=1)
    found = calls.bench.run("cotdistill", "reproduce", "--config", "other.yaml")
    assert "running other.yaml through Snakemake" in found.stdout
    assert "works in this folder" not in found.stdout and "another call" not in found.stdout
    end(first)


def test_snakemakes_own_lock_exception_becomes_one_line(calls: Calls) -> None:
    """A Snakemake that took the lock after we looked for one."""
    by_hand = snakemake_by_hand(calls)
    until(calls.works, "a job that works")
    for path in Path(".snakemake/locks").glob("*"):
        path.unlink()
    calls.prepare(said="LockException:\nError: Directory cannot be locked. ... --unlock argument.", code=1)
    found = calls.bench.run(*COMMAND[2:])
    assert found.returncode == 1
    last = found.stdout.splitlines()[-1]
    assert last.startswith(f"error: a snakemake works in this folder (process {by_hand.pid} on ")
    assert "--unlock" not in found.stdout
    for one in [*psutil.Process(by_hand.pid).children(), by_hand]:
        one.kill()
    by_hand.wait(60)


def test_each_call_has_its_log_and_the_last_are_kept(tmp_path: Path) -> None:
    for day in range(10, 30):
        (tmp_path / f"snakemake-202601{day}-120000-7.log").write_text(f"day {day}")
    (tmp_path / "snakemake.log").write_text("of an older version")
    link = begin_log(tmp_path)
    link.write_text("new")
    assert link == tmp_path / "snakemake.log" and link.is_symlink()
    kept = sorted(path.name for path in tmp_path.glob("snakemake-*.log"))
    assert len(kept) == KEPT_LOGS and kept[-1].endswith(f"-{os.getpid()}.log")
    assert (tmp_path / kept[-1]).read_text() == "new" and (tmp_path / kept[-2]).read_text() == "day 29"


def test_the_lease_of_a_grid_speaks_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"pid": 2**22 + 1, "machine": name_machine(), "host": "here"}
    (tmp_path / "lease-1").write_text(json.dumps(said))
    with Lease(tmp_path, what="grid"):
        pass
    assert "ended without giving this grid back" in capsys.readouterr().out

"""One run, one writer: whoever comes second waits, and takes over from a holder that is dead."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common import stopping
from cotdistill.common.errors import UserError
from cotdistill.common.files import atomic, sweep
from cotdistill.runs import lease
from cotdistill.runs.grid import Run
from cotdistill.runs.lease import Lease, find_holder, is_gone, list_holders, name_machine, read_start

QUICK = {"beat": 0.05, "stale": 0.4, "poll": 0.01}
ELSEWHERE = {"token": "of-another", "host": "n2", "machine": "n2 and its boot id", "pid": 1, "born": 1.0,
             "slurm_job": None, "since": 0.0, "count": 0}  # fmt: skip
# short times, for a process that is stopped or stands still; still long for two slow cores
SHORT = """
from cotdistill.runs.lease import Lease
Lease.__init__.__kwdefaults__.update(beat=0.1, stale=2.0, poll=0.05)
"""


def leave(folder: Path, number: int = 1, **about: Any) -> Path:
    """A lease file as a holder on another host left it."""
    path = folder / f"lease-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**ELSEWHERE, **about}).ljust(lease.SIZE - 1) + "\n")
    return path


def acquired(folder: Path, **times: float) -> float:
    """Seconds until the lease of a folder was had."""
    started = time.monotonic()
    with Lease(folder, **{**QUICK, **times}) as held:
        assert held.held
        return time.monotonic() - started


def test_what_was_swept_while_it_was_written_takes_no_place(tmp_path: Path) -> None:
    target = tmp_path / "best-4"
    with pytest.raises(UserError, match="cannot write .*best-4: No such file"), atomic(target) as part:
        part.mkdir()
        (part / "first").touch()
        sweep(tmp_path)  # by the process that takes over, whose own is in place now
        target.mkdir()
        (target / "its").touch()
        part.mkdir(parents=True)  # as libraries do before each file
        (part / "second").touch()
    assert [path.name for path in target.iterdir()] == ["its"]
    assert [path.name for path in tmp_path.iterdir()] == ["best-4"]


# --- real processes


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_of_processes_started_at_once_one_trains_and_the_others_use_its_result(
    bench: Any, whole: Run, numbers: Callable[[Run], Any], count: int
) -> None:
    at = bench()
    pids = [at.start(f"log-{number}") for number in range(count)]
    codes = [at.end(pid) for pid in pids]
    said = [at.said(f"log-{number}") for number in range(count)]
    assert codes == [0] * count, said
    made = at.steps()
    assert [step for step, _ in made] == list(range(1, 13)), "each step once"
    (trainer,) = {pid for _, pid in made}
    for pid, text in zip(pids, said, strict=True):
        waited = f"waiting: process {trainer} on {os.uname().nodename} works on this run"
        assert (waited in text) == (pid != trainer), text
    assert numbers(at.run) == numbers(whole)
    assert not (at.run.folder / "state").exists()


@pytest.mark.slow
def test_a_killed_holder_is_succeeded_at_once_by_a_waiter(
    bench: Any, whole: Run, numbers: Callable[[Run], Any]
) -> None:
    at = bench(checkpoint_every=3)
    first = at.start("first", pause=0.2)
    at.until(at.saved)
    second = at.start("second")
    at.until(lambda: "waiting: " in at.said("second"))
    os.kill(first, signal.SIGKILL)
    assert at.end(first) == -signal.SIGKILL
    killed = time.monotonic()
    at.until(lambda: "taking over: " in at.said("second"))
    assert time.monotonic() - killed < lease.STALE / 4, "a dead process is not waited for"
    assert at.end(second) == 0, at.said("second")
    assert f"taking over: process {first} on " in at.said("second")
    assert "going on from step " in at.said("second")
    assert numbers(at.run) == numbers(whole)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["while the other trains", "after the other has ended"])
def test_a_holder_that_slept_is_succeeded_and_writes_nothing_when_it_wakes(
    bench: Any, whole: Run, numbers: Callable[[Run], Any], moment: str
) -> None:
    at = bench(checkpoint_every=3)
    first = at.start("first", pause=0.2, first=SHORT)
    at.until(at.saved)
    os.kill(first, signal.SIGSTOP)
    try:
        before = len(at.steps())
        second = at.start("second", pause=0.2, first=SHORT)
        if moment == "while the other trains":
            at.until(lambda: len(at.steps()) > before + 2)
        else:
            assert at.end(second) == 0, at.said("second")
        files = {path: path.read_bytes() for path in at.run.folder.rglob("*") if path.is_file()}
    finally:
        os.kill(first, signal.SIGCONT)
    assert at.end(first) == 1
    line = at.said("first").splitlines()[-1]
    assert line.startswith("error: "), at.said("first")
    # or it was in the middle of writing, and the other has removed what was half-written
    assert "stood still for over 2 s" in line and "taken over by" in line or "cannot write " in line, line
    if moment == "while the other trains":
        assert f"process {second} on" in line or "cannot write " in line
        assert at.end(second) == 0, at.said("second")
    else:
        (at.run.folder / "failure.txt").unlink(missing_ok=True)
        assert {path: path.read_bytes() for path in at.run.folder.rglob("*") if path.is_file()} == files
    assert "taking over: " in at.said("second")
    assert numbers(at.run) == numbers(whole)


@pytest.mark.slow
def test_a_waiter_stops_when_asked(bench: Any) -> None:
    at = bench()
    leave(at.run.folder / "state")
    pid = at.start()
    at.until(lambda: "waiting: process 1 on n2" in at.said())
    os.kill(pid, signal.SIGTERM)
    assert at.end(pid) == stopping.PREEMPTED == 75
    assert "stopped: stopped by SIGTERM\n" in at.said() and "Traceback" not in at.said()
    assert at.steps() == []


# many processes and threads on one folder; some die inside. Whoever is inside says so in a file.
HAMMER = """
import os, random, sys, threading
from pathlib import Path
from cotdistill.runs.lease import Lease, read_start
root, rounds, threads, death = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
dice = random.Random(os.getpid())

def work():
    for _ in range(rounds):
        with Lease(root / "state", beat=0.02, stale=60, poll=0.004):
            try:
                os.close(os.open(root / f"inside", os.O_CREAT | os.O_EXCL))
                (root / "inside").write_text(f"{os.getpid()} {read_start(os.getpid())}")
            except FileExistsError:
                pid, since = (root / "inside").read_text().split()
                if read_start(int(pid)) == float(since):
                    (root / "broken").write_text(f"{pid} and {os.getpid()}")
                (root / "inside").write_text(f"{os.getpid()} {read_start(os.getpid())}")
            with open(root / "count", "a") as handle:
                handle.write(".")
            if dice.random() < death:
                os._exit(9)
            (root / "inside").unlink()

crew = [threading.Thread(target=work) for _ in range(threads)]
[one.start() for one in crew], [one.join() for one in crew]
"""


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "rounds", "death"), [(3, 12, 0.0), (1, 40, 0.15)])
def test_no_two_are_ever_inside(tmp_path: Path, threads: int, rounds: int, death: float) -> None:
    def start() -> subprocess.Popen[bytes]:
        source = str(Path(lease.__file__).parents[2])
        return subprocess.Popen(
            [sys.executable, "-c", HAMMER, *map(str, (tmp_path, rounds, threads, death))],
            env={**os.environ, "PYTHONPATH": source},
        )  # fmt: skip

    crew, deaths, until = [start() for _ in range(4)], 0, time.monotonic() + 5
    while crew:
        time.sleep(0.01)
        for process in [one for one in crew if one.poll() is not None]:
            crew.remove(process)
            assert process.returncode in (0, 9)
            deaths += process.returncode == 9
            if process.returncode == 9 and time.monotonic() < until:
                crew.append(start())
    assert not (tmp_path / "broken").exists(), (tmp_path / "broken").read_text()
    entered = len((tmp_path / "count").read_text())
    if death:
        assert deaths > 3 and entered > deaths
    else:
        assert entered == 4 * threads * rounds
    left = list_holders(tmp_path / "state")
    assert all(is_gone(found) for found in left) and (death or not left), "whoever lived gave it back"


# --- holders that are not this machine's


def test_a_holder_elsewhere_is_waited_for_until_its_count_stands_still(tmp_path: Path, capsys: Any) -> None:
    path = leave(tmp_path, since=time.time() + 10**9)
    last = [0.0]

    def count() -> None:
        for number in range(12):
            time.sleep(0.05)
            leave(tmp_path, count=number)
            last[0] = time.monotonic()

    beating = threading.Thread(target=count)
    beating.start()
    with Lease(tmp_path, **QUICK) as held:
        waited = time.monotonic() - last[0]
        beating.join()
        assert held.held and waited >= QUICK["stale"], "not before it stood still that long"
        assert held.path == tmp_path / "lease-2" and not path.exists()
        held.check()
    assert find_holder(tmp_path) is None
    out = capsys.readouterr().out
    assert out.startswith("waiting: process 1 on n2 works on this run; its result will be used\n")
    assert "taking over: process 1 on n2 ended without giving this run back\n" in out


OF_SLURM: dict[str, tuple[dict[str, Any], str, bool]] = {
    "an earlier start of this job": ({}, "2000", True),
    "this start, on another node": ({"slurm_start": 2000}, "2000", False),
    "a later start": ({"slurm_start": 2001}, "2000", False),
    "its start is not known": ({"slurm_start": None}, "2000", False),
    "its start is no number": ({"slurm_start": "1000"}, "2000", False),
    "our own start is not known": ({}, "", False),
    "neither is known": ({"slurm_start": None}, "", False),
    "another job": ({"slurm_job": "8"}, "2000", False),
    "no job": ({"slurm_job": None}, "2000", False),
    "the job of that number of another cluster": ({"slurm_cluster": "c2"}, "2000", False),
}


@pytest.mark.parametrize(("about", "start", "at_once"), OF_SLURM.values(), ids=OF_SLURM)
def test_only_the_earlier_start_of_this_slurm_job_is_known_to_be_dead(
    tmp_path: Path, monkeypatch: Any, about: dict[str, Any], start: str, at_once: bool
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c1")
    monkeypatch.setenv("SLURM_JOB_START_TIME", start)
    leave(tmp_path, **{"slurm_job": "7", "slurm_cluster": "c1", "slurm_start": 1000, **about})
    assert (acquired(tmp_path) < QUICK["stale"]) == at_once


def test_a_process_of_this_job_in_another_container_is_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    for name, value in (("JOB_ID", "7"), ("CLUSTER_NAME", "c1"), ("JOB_START_TIME", "1000")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    with Lease(tmp_path, **QUICK) as held:
        about = json.loads((tmp_path / "lease-1").read_text())
        assert (about["slurm_job"], about["slurm_start"]) == ("7", 1000)
        monkeypatch.setattr(lease, "name_machine", lambda: "this machine, other process numbers")
        (found,) = list_holders(tmp_path)
        assert not is_gone(found)
        held.check()


def test_a_process_of_this_machine_is_told_from_a_later_one_of_its_number(tmp_path: Path) -> None:
    mine = {"machine": name_machine(), "pid": os.getpid()}
    leave(tmp_path, **mine, born=read_start(os.getpid()))
    assert acquired(tmp_path) >= QUICK["stale"], "it works"
    leave(tmp_path, **mine, born=1.0)
    assert acquired(tmp_path) < QUICK["stale"], "it was another, before"
    with subprocess.Popen(["true"]) as process:
        leave(tmp_path, machine=name_machine(), pid=process.pid, born=read_start(process.pid))
        while read_start(process.pid) is not None:
            time.sleep(0.01)
        assert acquired(tmp_path) < QUICK["stale"], "ended, though its parent has not asked for it yet"


# --- lease files that no holder would write

GARBAGE = {
    "empty": b"",
    "no UTF-8": b"\xff\xfe" * 700,
    "no object": b"[1, 2]",
    "nested deep": b"[" * 100_000,
    "a number of thousands of digits": b"1" * 5000,
    "this machine, and no process": json.dumps({"machine": name_machine(), "pid": "x", "born": 1}).encode(),
    "half": json.dumps(ELSEWHERE).encode()[:60],
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_lease_that_says_nothing_is_waited_for_until_it_is_stale(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease-3").write_bytes(content)
    waited = acquired(tmp_path)
    assert QUICK["stale"] <= waited < QUICK["stale"] + 5
    assert list(tmp_path.iterdir()) == []


def test_a_huge_lease_file_is_not_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "lease-1", "wb") as handle:
        handle.truncate(1 << 40)  # sparse: a terabyte of zeros
    assert acquired(tmp_path) >= QUICK["stale"]
    assert list(tmp_path.iterdir()) == []


def test_files_of_like_names_are_no_leases(tmp_path: Path) -> None:
    for name in ("lease-", "lease-x", "lease-²", "lease-" + "9" * 200, "lease-1.old"):
        (tmp_path / name).touch()
    assert acquired(tmp_path) < QUICK["stale"] and len(list(tmp_path.iterdir())) == 5


def test_several_dead_holders_block_nobody(tmp_path: Path) -> None:
    for number in (1, 4, 6):
        leave(tmp_path, number, machine=name_machine(), born=1.0)
    assert acquired(tmp_path) < QUICK["stale"]
    assert list(tmp_path.iterdir()) == []


def test_a_dead_lease_that_was_replaced_meanwhile_is_the_living_ones(tmp_path: Path) -> None:
    leave(tmp_path, machine=name_machine(), born=1.0)
    dead = list_holders(tmp_path)  # as a slow process saw it; another has taken over since, and a third begun
    leave(tmp_path, token="of-the-third")
    slow = Lease(tmp_path, **QUICK)
    assert not slow._create(dead)
    assert [path.name for path in tmp_path.iterdir()] == ["lease-1"]
    assert "of-the-third" in (tmp_path / "lease-1").read_text()


def test_a_lease_that_vanishes_while_it_is_written_is_not_held(tmp_path: Path, monkeypatch: Any) -> None:
    mine = Lease(tmp_path, **QUICK)
    write = mine._write
    monkeypatch.setattr(mine, "_write", lambda: ((tmp_path / "lease-1").unlink(), write()))
    assert not mine._create([])


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 900, json.dumps(ELSEWHERE).encode()])
def test_a_holder_whose_file_is_not_its_own_refuses_to_write(tmp_path: Path, content: bytes | None) -> None:
    with Lease(tmp_path, beat=60.0) as held:
        held.check()
        assert held.path is not None
        if content is None:
            held.path.unlink()
        else:
            held.path.write_bytes(content)
        with pytest.raises(UserError, match="passed for dead, and the run was taken over by"):
            held.check()
    left = [path.read_bytes() for path in tmp_path.iterdir()]
    assert left == ([] if content is None else [content]), "and leaves the other's lease alone"


# --- clocks


def test_nothing_depends_on_the_wall_clock(tmp_path: Path, monkeypatch: Any) -> None:
    dice = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: dice.choice([-1e12, 0.0, 1e12]))
    path = leave(tmp_path, since=1e18)
    os.utime(path, (4e9, 4e9))
    assert QUICK["stale"] <= acquired(tmp_path) < QUICK["stale"] + 5
    with Lease(tmp_path, **QUICK) as held:
        entered: list[bool] = []
        other = threading.Thread(target=lambda: entered.append(acquired(tmp_path) > 0))
        other.start()
        time.sleep(3 * QUICK["stale"])
        held.check()
        assert not entered, "a holder that counts is waited for"
    other.join()
    assert entered == [True]


def test_waiting_ends_when_there_is_no_need_any_more(tmp_path: Path) -> None:
    leave(tmp_path)
    told = iter([False, False, True])
    with Lease(tmp_path, until=lambda: next(told), **QUICK) as waited:
        assert not waited.held
        waited.check()
    assert find_holder(tmp_path) is not None, "the other's lease is left alone"

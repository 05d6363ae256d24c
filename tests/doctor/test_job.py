"""The small real job: what it proves, what it says when it does not start, and that nothing stays behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.orchestration.doctor import job
from cotdistill.orchestration.doctor.job import Job

Fake = Callable[..., Path]
Make = Callable[..., Any]
Of = Callable[[Any], Any]

TAKES = "echo 4711"
"""an sbatch that takes the job and never runs it"""


def test_a_node_that_sees_all_is_ok_and_nothing_stays(
    cluster: Fake, make: Make, levels: Of, work: Path
) -> None:
    found = list(job.check_node(make()))
    assert levels(found) == [("ok", "node"), ("ok", "gpu"), ("ok", "clock")], found
    assert "job 4711 on " in found[0].text and "none asked for: the config needs none" in found[1].text
    assert os.listdir(work) == [], "also the results folder that had to be made is gone"


def test_results_that_are_there_are_left_alone(cluster: Fake, make: Make, work: Path) -> None:
    (work / "results").mkdir()
    (work / "results" / "mine").touch()
    list(job.check_node(make()))
    assert os.listdir(work / "results") == ["mine"]


def test_the_job_asks_for_little_where_the_runs_will_ask(cluster: Fake, make: Make, work: Path) -> None:
    cluster("sbatch", f'for word; do echo "$word"; done > {work}/asked; exit 1')
    profile = {"default-resources": {"slurm_partition": "gpu", "slurm_extra": "'--requeue'"}}
    students = [{"name": "big", "scratch": {}, "compute": {"mem_mb": 90_000}}]
    list(job.check_node(make(profile, training={"device": "cuda"}, students=students)))
    asked = (work / "asked").read_text().splitlines()
    assert {"--partition=gpu", "--requeue", "--gpus=1", "--mem=4000", "--time=10"} <= {*asked}
    assert asked[-1].endswith("/node.json --torch")


def cancelled(work: Path) -> str:
    return (work / "cancelled").read_text() if (work / "cancelled").exists() else ""


@pytest.fixture
def queue(cluster: Fake, work: Path) -> Callable[[str], None]:
    """A cluster that takes the job, lists it like this, and notes what is cancelled."""
    cluster("sbatch", TAKES)
    cluster("scancel", f'echo "$@" >> {work}/cancelled')
    return lambda line: None if not cluster("squeue", f"echo '{line}'") else None


def test_a_job_that_waits_too_long_is_cancelled_with_its_reason(
    queue: Callable[[str], None], make: Make, only: Of, work: Path
) -> None:
    queue("PENDING|Resources|")
    found = only(job.check_node(make(wait=0.6)))
    assert found.level == "warn" and "4711 was still pending after 0.6 s (Resources)" in found.text
    assert "--name=cotdistill-doctor-" in cancelled(work) and os.listdir(work) == ["cancelled"]


def test_a_job_that_runs_and_writes_nothing_is_a_failure_and_cancelled(
    queue: Callable[[str], None], make: Make, only: Of, work: Path
) -> None:
    queue("RUNNING|None|n7")
    found = only(job.check_node(make(wait=0.6)))
    assert found.level == "FAIL" and "on n7 ran for up to 0.6 s and wrote nothing into" in found.text
    assert "folders that nodes see" in found.advice and cancelled(work)


def test_a_job_that_ends_without_a_word_shows_its_log(cluster: Fake, make: Make, only: Of) -> None:
    writes = 'case "$w" in --output=*) echo "exec: python: not found" > "${w#--output=}";; esac'
    cluster("sbatch", f"for w; do {writes}; done; echo 4711")
    found = only(job.check_node(make()))
    assert found.level == "FAIL" and "ended and wrote nothing" in found.text
    assert "its log: exec: python: not found" in found.text


@pytest.mark.parametrize("squeue", ["exit 1", "echo garbage", "echo '|||||'", "/bin/sleep 60"])
def test_a_queue_that_cannot_be_read_is_waited_out(
    squeue: str, queue: Callable[[str], None], cluster: Fake, make: Make, only: Of, monkeypatch: Any
) -> None:
    monkeypatch.setattr("cotdistill.orchestration.doctor.shell.TIMEOUT", 0.3)
    cluster("squeue", squeue)
    assert only(job.check_node(make(wait=0.6))).level == "warn"


def test_a_refusal_is_shown_and_cancelled_all_the_same(
    queue: Callable[[str], None], cluster: Fake, make: Make, only: Of, work: Path
) -> None:
    cluster("sbatch", "echo 'sbatch: error: QOSMinGRES' >&2; exit 1")
    found = only(job.check_node(make()))
    assert found.level == "FAIL" and "QOSMinGRES" in found.text and cancelled(work)


def test_an_interrupt_cancels_the_job_and_cleans_up(
    queue: Callable[[str], None], make: Make, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(job: Job) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(job.check_node(make()))
    assert cancelled(work) and os.listdir(work) == ["cancelled"]


def test_results_that_cannot_be_written_are_a_failure(cluster: Fake, make: Make, only: Of) -> None:
    site = make(results="blocked/results")
    Path("blocked").touch()
    found = only(job.check_node(site))
    assert found.level == "FAIL" and found.text.startswith("cannot write blocked/results: ")


def test_no_job_where_slurm_refused_or_none_is_wanted(cluster: Fake, make: Make, only: Of) -> None:
    site = make(wait=0)
    assert only(job.check_node(site)).level == "skip"
    site = make()
    site.refused = "no such partition"
    assert "no such partition" in only(job.check_node(site)).text


@pytest.mark.parametrize("banner", ["Welcome to the cluster!\n4711;main\n", "4711\n\n", "Submitted job\n"])
def test_the_jobs_number_is_read_beside_banners(banner: str, cluster: Fake, make: Make, work: Path) -> None:
    cluster("sbatch", f"printf '{banner.encode('unicode_escape').decode()}'")
    mine = Job("cotdistill-doctor-x", time.time())
    assert job._submit(make(), mine, work) == ""
    assert mine.number == ("4711" if "4711" in banner else "?")


SEEN = {"host": "n7", "python": "3.11.7", "missing": [], "command": "/x/cotdistill", "devices": "0",
        "gpus": ["NVIDIA H200"], "torch": {"version": "2.13.0", "built": "12.8", "count": 1}}  # fmt: skip
CPU_BUILD = {"version": "2.13.0+cpu", "built": None, "count": 0}


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({}, "ok", "NVIDIA H200; CUDA_VISIBLE_DEVICES=0; torch 2.13.0 sees 1 of 1"),
        ({"torch": CPU_BUILD}, "FAIL", "built for CPUs"),
        ({"torch": {**CPU_BUILD, "built": "12.8"}, "gpus": None}, "FAIL", "the node gave no GPU"),
        ({"torch": {**CPU_BUILD, "built": "12.8"}}, "FAIL", "driver and this torch do not fit"),
        ({"torch": {"error": "ImportError: libcudart.so"}}, "FAIL", "libcudart.so -> reinstall torch"),
        ({"torch": None}, "warn", "torch had not answered yet"),
        ({"torch": None, "gpus": []}, "FAIL", "none by nvidia-smi"),
        ({"torch": {"count": "many"}, "gpus": "x"}, "FAIL", "sees 0 of 1"),
    ],
)
def test_the_gpu_line_says_what_is_wrong(change: Any, level: str, words: str, make: Make) -> None:
    found = job._check_gpu({**SEEN, **change}, make(training={"device": "cuda"}))
    assert found.level == level and words in found.line()


def test_too_few_gpus_are_a_failure(make: Make) -> None:
    found = job._check_gpu(SEEN, make(training={"device": "cuda", "gpus": 2}))
    assert found.level == "FAIL" and "sees 1 of 2" in found.text


def test_device_auto_asks_slurm_for_no_gpu_and_says_so(make: Make) -> None:
    found = job._check_gpu(SEEN, make(training={"device": "auto"}))
    assert found.level == "warn" and "training.device: cuda" in found.advice


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({}, "ok", "runs this Python (3.11.7)"),
        ({"command": None}, "warn", "finds no `cotdistill` on PATH"),
        ({"missing": ["/home/me/hub/t5"]}, "FAIL", "does not see /home/me/hub/t5 -> set HF_HOME"),
        ({"host": ["\x1b[2J"], "python": None, "missing": 7}, "ok", "None"),
    ],
)
def test_the_node_line_says_what_the_node_lacks(change: Any, level: str, words: str) -> None:
    found = job._check_reached({**SEEN, **change}, Job("x", 0.0, number="4711"))
    assert found.level == level and words in found.line() and found.line().isprintable()


@pytest.mark.parametrize(
    ("node", "written", "server", "level"),
    [(0, 0, 0, "ok"), (60, 0, 0, "warn"), (-60, 0, 0, "warn"), (0, 60, 60, "warn"), (60, 60, 0, "warn")],
    ids=["all alike", "node ahead", "node behind", "file server ahead", "a server that stamps as it is told"],
)
def test_clocks_apart_are_found(
    node: float, written: float, server: float, level: str, tmp_path: Path
) -> None:
    now = time.time()
    (tmp_path / "node.json").touch()
    os.utime(tmp_path / "node.json", (now + written, now + written))
    mine = Job("x", now - 1)
    found = job._check_clock({"time": now + node}, mine, tmp_path / "node.json", server)
    assert found.level == level and (level == "ok" or "60 s apart" in found.text)


@pytest.mark.parametrize("told", [None, "now", float("nan"), {}])
def test_a_node_without_a_time_does_no_harm(told: Any, tmp_path: Path) -> None:
    assert job._check_clock({"time": told}, Job("x", 0), tmp_path / "none", 0.0).level == "warn"

"""What a process may use of its machine is the least that affinity, control groups and limits leave it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cotdistill.common import machine


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups, on a machine of 16 cores."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_without_limits_it_is_the_machines(groups: Path) -> None:
    assert machine.count_cores() == 16
    assert machine.measure_memory_mb() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def test_a_group_around_the_own_one_may_have_the_least(groups: Path) -> None:
    write(groups, membership="0::/job/step\n")
    write(groups / "job", cpu__max="350000 100000\n", memory__max=f"{300 * 2**20}\n")
    write(groups / "job" / "step", cpu__max="max 100000\n", memory__max="max\n")
    assert (machine.count_cores(), machine.measure_memory_mb()) == (4, 300)


def test_groups_of_the_first_version(groups: Path) -> None:
    write(groups, membership="4:memory:/job\n1:cpu,cpuacct:/job\n")
    write(groups / "cpu" / "job", **{"cpu__cfs_quota_us": "200000", "cpu__cfs_period_us": "100000"})
    write(groups / "memory" / "job", memory__limit_in_bytes=str(2**28))
    assert (machine.count_cores(), machine.measure_memory_mb()) == (2, 256)


@pytest.mark.parametrize(
    ("said", "cores"), [("3", 3), ("2(x4)", 16), ("", 16), ("-1", 16), ("0", 16), ("9" * 30, 16)]
)
def test_the_cores_of_a_slurm_job(
    groups: Path, monkeypatch: pytest.MonkeyPatch, said: str, cores: int
) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", said)
    assert machine.count_cores() == 16, "not in a job"
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert machine.count_cores() == cores


@pytest.mark.parametrize("text", ["", "max", "-1 100000", "x y", "0 0", "9" * 30])
def test_a_group_that_says_nothing_sets_no_limit(groups: Path, text: str) -> None:
    write(groups, membership="0::/\nnonsense\n")
    write(groups, cpu__max=text, memory__max=text)
    assert machine.count_cores() == 16 and (machine.measure_memory_mb() or 0) > 300


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds processes to it")
def test_a_limit_of_addresses_is_a_limit_of_memory() -> None:
    code = "from cotdistill.common.machine import *; print(measure_address_space_mb(), measure_memory_mb())"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(machine.__file__).parents[2])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (900 * 2**20, 900 * 2**20)),
    )  # fmt: skip
    assert found.stdout == "900 900\n"

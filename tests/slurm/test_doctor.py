"""`cotdistill doctor` on a real cluster: what it submits is taken, and what it says is so."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cotdistill.cli import main

Doctor = Callable[..., dict[str, str]]

PROFILE = Path(__file__).parents[2] / "profiles" / "slurm" / "config.v9+.yaml"
PARTITION = "gpu"


@pytest.fixture
def doctor(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
           capsys: pytest.CaptureFixture[str]) -> Doctor:  # fmt: skip
    """Run the doctor in an empty folder, with the shipped profile; the line of each check."""
    import cotdistill

    python = Path(sys.executable).parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{cluster.bin}:{python}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(cotdistill.__file__).parents[1]))
    (tmp_path / "slurm").mkdir()

    def run(*arguments: str, partition: str = PARTITION, **training: Any) -> dict[str, str]:
        profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
        profile["default-resources"]["slurm_partition"] = partition
        profile["retries"] = 0
        (tmp_path / "slurm" / PROFILE.name).write_text(yaml.safe_dump(profile))
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({
            "experiment": "tiny", "datasets": ["demo"], "methods": ["dss"], "seeds": [0],
            "students": [{"name": "mini", "scratch": {}, "compute": {"mem_mb": 1500, "runtime": 10}}],
            "training": {"device": "cpu", **training},
        }))  # fmt: skip
        code = main(["doctor", "--profile", "slurm", *arguments])
        lines = capsys.readouterr().out.splitlines()
        assert code == any(line.startswith("FAIL") for line in lines)
        found = {line[6:13].strip(): line for line in lines}
        print(*lines, sep="\n")
        return found

    return run


def test_a_sound_site_is_all_ok_and_nothing_stays(doctor: Doctor, cluster: Any, tmp_path: Path) -> None:
    lines = doctor()
    assert all(line.startswith("ok ") for line in lines.values()), lines
    assert {"slurm", "request", "status", "orphans", "node", "gpu", "clock", "disk"} <= {*lines}
    assert not (tmp_path / "results").exists()


def test_refusals_are_slurms_own(doctor: Doctor) -> None:
    unknown = doctor(partition="nowhere")
    assert unknown["request"].startswith("FAIL") and "nvalid partition" in unknown["request"]
    assert unknown["node"].startswith("skip")
    many = doctor(device="cuda", gpus=3)
    assert many["request"].startswith("FAIL") and "not available" in many["request"]


def test_a_node_without_a_driver_is_found_by_a_job_that_has_a_gpu(doctor: Doctor) -> None:
    pytest.importorskip("torch")
    lines = doctor(device="cuda", gpus=1)
    assert lines["request"].startswith("ok") and "--gpus=1" in lines["request"]
    assert lines["node"].startswith("ok")
    # the cluster's GPUs do not exist: a job gets their number, and torch sees nothing
    assert lines["gpu"].startswith("FAIL") and "sees 0 of 1" in lines["gpu"]


def test_a_full_cluster_and_jobs_left_behind_are_told(doctor: Doctor, cluster: Any, tmp_path: Path) -> None:
    job = cluster.call(
        "sbatch", "--parsable", f"--partition={PARTITION}", "--exclusive", "--time=5", "--output=/dev/null",
        "--comment=rule_train_wildcards_demo_mini_dss_gold_1_0", f"--chdir={tmp_path}", "--wrap=sleep 200",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while cluster.field(job, "JobState") != "RUNNING" and time.monotonic() < deadline:
            time.sleep(0.2)
        lines = doctor("--job-timeout", "4")
    finally:
        cluster.call("scancel", job)
    assert lines["orphans"].startswith("warn") and f"scancel {job}" in lines["orphans"]
    assert f"{job} train demo/mini/dss/gold/1/0 RUNNING" in lines["orphans"]
    assert lines["node"].startswith("warn") and "was still pending after 4 s (" in lines["node"]
    names = {row[0] for row in cluster.query("%j")}
    assert not [name for name in names if name.startswith("cotdistill-doctor")], "its job is cancelled"

"""The profiles as Snakemake reads them, without a cluster."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from grid import CONFIG, ROOT, Checkout

from cotdistill.orchestration import patches


@pytest.fixture
def work(tmp_path: Path) -> Checkout:
    """A checkout whose run asks for more threads than this machine has, its data prepared in name only."""
    made = Checkout.make(tmp_path / "work", ["mini/dss/0"])
    values = yaml.safe_load((made.root / CONFIG).read_text())
    values["students"][0]["compute"] = {"threads": 999, "mem_mb": 2000, "runtime": 100}
    values["training"] |= {"device": "cuda", "gpus": 2}
    (made.root / CONFIG).write_text(yaml.safe_dump(values))
    prepared = made.root / "results/cluster/prepared/demo/mini"
    (prepared / "tokenizer").mkdir(parents=True)
    for name in ("manifest.json", "train.arrow", "valid.arrow", "test.arrow"):
        (prepared / name).touch()
    return made


def submitted(work: Checkout, tmp_path: Path) -> list[str]:
    """The arguments with which the profile has sbatch called for the training, by an sbatch that refuses."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "sinfo", "sacct", "sacctmgr"):
        answer = f'printf "%s\\n" "$@" > {tmp_path}/sbatch; exit 1' if name == "sbatch" else "exit 0"
        (tools / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tools / name).chmod(0o755)
    work.environment["PATH"] = f"{tools}:{work.environment['PATH']}"
    command = ["snakemake", "--profile", "slurm", "--configfile", CONFIG, "--retries", "0"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--slurm-init-seconds-before-status-checks", "1"],
        cwd=work.root, env=work.environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert (tmp_path / "sbatch").is_file(), done.stdout + done.stderr
    return (tmp_path / "sbatch").read_text().splitlines()


def settings(name: str) -> dict[str, Any]:
    (path,) = (ROOT / name).glob("*.yaml")
    return yaml.safe_load(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slurm", "multi-gpu"])
def test_profile_is_found_from_the_root_and_goes_with_the_default_one(work: Checkout, name: str) -> None:
    text = work.call("-m", "snakemake", "--profile", name, "--configfile", CONFIG, "-n")
    assert f"Using profiles {name} and workflow specific profile profiles/default" in text


@pytest.mark.slow
def test_profile_asks_slurm_for_what_the_run_needs(work: Checkout, tmp_path: Path) -> None:
    asked = submitted(work, tmp_path)
    # the default profile's `cores: all` must not cut threads to the cores of this machine
    for words in (["--cpus-per-task=1998"], ["--gpus=2"], ["--mem", "2300"], ["-t", "100"],
                  ["--signal=USR1@120", "--requeue", "--open-mode=append"]):  # fmt: skip
        start = asked.index(words[0])
        assert asked[start : start + len(words)] == words
    assert "-A" not in asked and "-p" not in asked


@pytest.mark.slow
def test_example_for_sites_with_gres_works(work: Checkout, tmp_path: Path) -> None:
    (path,) = (work.root / "slurm").glob("*.yaml")
    text = re.sub(r"^# (set-resources:|  train: |  evaluate: )", r"\1", path.read_text(), flags=re.MULTILINE)
    assert "\nset-resources:" in text
    path.write_text(text)
    asked = submitted(work, tmp_path)
    assert "--gres=gpu:1" in asked
    assert not [word for word in asked if word.startswith("--gpus")]


def test_multi_gpu_profile_counts_gpus() -> None:
    assert [re.fullmatch(r"gpu=\d+", one) is not None for one in settings("multi-gpu")["resources"]] == [True]


def test_slurm_profile_names_no_site() -> None:
    assert set(settings("slurm")["default-resources"]) == {"slurm_extra"}


def test_failed_status_query_loses_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(command: str, logger: object) -> tuple[None, None]:
        return None, None

    async def speaking(command: str, logger: object) -> tuple[dict[str, str], float]:
        return {"1": "RUNNING"}, 0.5

    for query, expected in ((silent, ({}, 0.0)), (speaking, ({"1": "RUNNING"}, 0.5))):
        plugin = SimpleNamespace(query_job_status=query)
        monkeypatch.setitem(sys.modules, patches.PLUGIN, plugin)
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        patches.apply()
        patches.apply()  # a Snakefile may be read twice
        assert asyncio.run(plugin.query_job_status("squeue", None)) == expected


def test_plugin_still_has_what_is_patched() -> None:
    import snakemake_executor_plugin_slurm as plugin

    assert asyncio.iscoroutinefunction(plugin.query_job_status)


def test_the_installed_versions_are_those_that_are_patched(capsys: pytest.CaptureFixture[str]) -> None:
    for distribution in patches.VERSIONS:
        assert patches._is_known(distribution, "...")
    assert capsys.readouterr().err == ""


def test_another_version_is_left_as_it_is_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def query(command: str, logger: object) -> tuple[None, None]:
        return None, None

    records = SimpleNamespace(_read_record=len)
    plugin = SimpleNamespace(query_job_status=query)
    monkeypatch.setitem(sys.modules, patches.PLUGIN, plugin)
    monkeypatch.setitem(sys.modules, patches.RECORDS, SimpleNamespace(FilePersistence=records))
    monkeypatch.setattr(patches.importlib.metadata, "version", lambda name: "99.0")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    patches.apply()
    assert plugin.query_job_status is query and records._read_record is len
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "warning: snakemake-executor-plugin-slurm 99.0 is not patched, as 2.8.0 is: "
        "silence of Slurm may lose jobs",
        "warning: snakemake 99.0 is not patched, as 9.27.1 is: "
        "a corrupt record of a job ends it with a traceback",
    ]


@pytest.mark.parametrize("job", [True, False])
def test_warning_signal_ends_training_and_not_the_snakemake_around_it(job: bool) -> None:
    code = "import os; from cotdistill.orchestration.patches import apply; apply(); os.kill(os.getpid(), 10)"
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_JOB_ID"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), **({"SLURM_JOB_ID": "1"} if job else {})}
    found = subprocess.run([sys.executable, "-c", code], env=environment)
    assert found.returncode == (0 if job else -signal.SIGUSR1)

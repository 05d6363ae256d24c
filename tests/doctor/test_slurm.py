"""Slurm's commands, the request, and jobs left behind, with Slurm's own words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.orchestration.doctor import slurm
from cotdistill.orchestration.doctor.site import USER

Fake = Callable[..., Path]
Make = Callable[..., Any]
Of = Callable[[Any], Any]

GPU = {"training": {"device": "cuda", "gpus": 2}}


def test_all_commands_and_the_version_make_an_ok(cluster: Fake, make: Make, only: Of) -> None:
    found = only(slurm.check_commands(make()))
    assert found.level == "ok" and found.text.startswith("slurm 24.05.1")


def test_missing_commands_are_named(cluster: Fake, make: Make, only: Of) -> None:
    for name in ("srun", "scontrol"):
        (cluster(name)).unlink()
    site = make()
    found = only(slurm.check_commands(site))
    assert found.level == "FAIL" and "scontrol, srun" in found.text and not site.no_slurm


def test_without_sbatch_the_other_checks_of_slurm_are_spared(make: Make, only: Of) -> None:
    site = make()
    assert only(slurm.check_commands(site)).level == "FAIL" and site.no_slurm


@pytest.mark.parametrize(("asked", "level"), [(True, "FAIL"), (False, "skip")])
def test_commands_without_a_cluster_are_a_fault_only_where_slurm_is_meant(
    asked: bool, level: str, cluster: Fake, make: Make, only: Of
) -> None:
    cluster("sbatch", "echo 'sbatch: fatal: Could not establish a configuration source' >&2; exit 1")
    site = make()
    site.asked = asked
    found = only(slurm.check_commands(site))
    assert found.level == level and "configuration source" in found.text and site.no_slurm


def test_the_request_is_that_of_the_largest_job(cluster: Fake, make: Make, work: Path) -> None:
    cluster("sbatch", f'for word; do echo "$word"; done > {work}/asked')
    students = [{"name": f"s{mem}", "scratch": {}, "compute": {"mem_mb": mem, "runtime": 5, "threads": 3}}
                for mem in (100, 7000, 300)]  # fmt: skip
    profile = {"slurm-qos": "long", "default-resources": {
        "slurm_partition": "gpu", "slurm_account": "lab", "constraint": "a100",
        "slurm_extra": "'--signal=USR1@120 --requeue'"}}  # fmt: skip
    site = make(profile, students=students, **GPU)
    assert site.largest.student.name == "s7000"
    list(slurm.check_request(site))
    assert (work / "asked").read_text().split() == [
        "--test-only", f"--mem={site.asks()['mem_mb']}", "--time=5", "--cpus-per-task=6",
        "--account=lab", "--partition=gpu", "--constraint=a100", "--qos=long", "--gpus=2",
        "--signal=USR1@120", "--requeue", "--wrap=true",
    ]  # fmt: skip


def test_gpus_are_asked_for_in_the_profiles_form(make: Make) -> None:
    plain = make({"default-resources": {"gpu_model": "a100"}}, **GPU)
    assert "--gpus=a100:2" in plain.request() and plain.gpus == 2
    gres = make({"set-resources": {"train": {"gpu": 0, "gres": "'gpu:a100:1'"}}}, **GPU)
    assert "--gres=gpu:a100:1" in gres.request() and gres.gpus == 1
    assert not [word for word in gres.request() if word.startswith("--gpus")]
    assert make().gpus == 0 and not [word for word in make().request() if "gpu" in word]


def test_a_refusal_is_shown_in_slurms_words_and_says_what_to_correct(
    cluster: Fake, make: Make, only: Of
) -> None:
    cluster("sbatch", "echo 'sbatch: error: Invalid account or account/partition combination' >&2; exit 1")
    site = make({"default-resources": {"slurm_account": "gone"}})
    found = only(slurm.check_request(site))
    assert found.level == "FAIL" and "Invalid account or account/partition" in found.text
    assert "--account=gone" in found.text and "slurm_account" in found.advice and site.refused


def test_a_hanging_sbatch_is_a_refusal(cluster: Fake, make: Make, only: Of, monkeypatch: Any) -> None:
    monkeypatch.setattr("cotdistill.orchestration.doctor.shell.TIMEOUT", 0.3)
    cluster("sbatch", "/bin/sleep 60")
    found = only(slurm.check_request(make()))
    assert found.level == "FAIL" and "no answer in 0.3 s" in found.text


def test_unreadable_slurm_extra_is_named(cluster: Fake, make: Make, only: Of) -> None:
    found = only(slurm.check_request(make({"default-resources": {"slurm_extra": "--comment='open"}})))
    assert found.level == "FAIL" and "slurm_extra" in found.text


@pytest.mark.parametrize(("partition", "level"), [("debug", "FAIL"), ("", "ok")], ids=["short", "default"])
def test_a_time_that_the_partition_never_grants_is_found(
    partition: str, level: str, cluster: Fake, make: Make, only: Of
) -> None:
    cluster("sinfo", 'case "$*" in *--partition=debug*) echo "debug|30:00";; '
                     '*) echo "debug|30:00"; echo "gpu*|1-00:00:00";; esac')  # fmt: skip
    site = make({"default-resources": {"slurm_partition": partition}})
    found = only(slurm.check_request(site))
    assert found.level == level and ("allows 30" in found.text) == (level == "FAIL") == bool(site.refused)


def test_a_retry_that_would_be_refused_is_a_warning(cluster: Fake, make: Make, levels: Of) -> None:
    memory = make().asks(attempt=3)["mem_mb"]
    assert memory > 2 * make().asks()["mem_mb"]
    cluster("sbatch", f'case "$*" in *--mem={memory}*) echo "Memory not available" >&2; exit 1;; esac')
    assert levels(slurm.check_request(make({"retries": 1}))) == [("ok", "request")]
    found = list(slurm.check_request(make({"retries": 2})))
    assert levels(found) == [("ok", "request"), ("warn", "request")]
    assert f"attempt 3 would ask for {memory} MB and 270 minutes" in found[1].text
    assert "Memory not available" in found[1].text


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("infinite", None), ("n/a", None), ("", None), ("45", 45), ("30:00", 30), ("2:15:00", 135),
     ("1-00:00:00", 1440), ("7-12", 10_800), ("x" * 9, None)],
)  # fmt: skip
def test_times_of_slurm_are_read(text: str, minutes: int | None) -> None:
    assert slurm._parse_minutes(text) == minutes


def row(job: int, comment: str, folder: str, name: str = "prefix-uuid", state: str = "RUNNING") -> str:
    return f"{job}|{state}|1:02|n7|{name}|{comment}|{folder}"


def queue(fake: Fake, *rows: str) -> None:
    lines = "\n".join(rows)
    fake("squeue", f"[ \"$2\" = --user={USER} ] || exit 3\n/bin/cat <<'E'\n{lines}\nE")


def test_jobs_without_a_snakemake_are_named_with_their_run(cluster: Fake, make: Make, only: Of) -> None:
    here = os.getcwd()
    queue(cluster,
          row(11, "rule_train_wildcards_demo_mini_dss_gold_1_0", here),
          row(12, "rule_collect", here, state="PENDING"),
          row(13, "mine | with | bars", here),
          row(14, "rule_train_wildcards_demo_mini_dss_gold_1_0", "/elsewhere"),
          row(15, f"x|{here}", "/elsewhere"),
          row(16, "(null)", here, name="cotdistill-doctor-ab12"))  # fmt: skip
    found = only(slurm.check_orphans(make()))
    assert found.level == "warn" and "3 jobs of this folder" in found.text
    assert "11 train demo/mini/dss/gold/1/0 RUNNING 1:02 n7" in found.text
    assert "12 collect PENDING" in found.text and "13 mine | with | bars RUNNING" in found.text
    assert "lease" in found.advice and found.advice.endswith("scancel 11 12 13")


def test_jobs_of_a_snakemake_that_runs_are_no_orphans(
    cluster: Fake, make: Make, only: Of, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(cluster, row(11, "rule_train", os.getcwd()))
    monkeypatch.setattr(slurm, "find_snakemakes", lambda: [99])
    found = only(slurm.check_orphans(make()))
    assert found.level == "ok" and "process 99" in found.text


def test_an_empty_or_silent_queue_is_told_apart(cluster: Fake, make: Make, only: Of) -> None:
    assert only(slurm.check_orphans(make())).level == "ok"
    cluster("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    found = only(slurm.check_orphans(make()))
    assert found.level == "warn" and "Unable to contact" in found.text

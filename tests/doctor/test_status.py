"""The status command that Snakemake's plugin will really use must know the end of jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.orchestration.doctor import status

Fake = Callable[..., Path]
Make = Callable[..., Any]
Of = Callable[[Any], Any]

OFF = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
SHORT = 'echo "MinJobAge               = 60 sec"'


@pytest.mark.parametrize(
    ("setting", "sacct", "scontrol", "level", "words"),
    [
        ("squeue", "", None, "ok", "squeue answers"),
        ("squeue", OFF, None, "ok", "squeue answers"),
        ("sacct", OFF, None, "FAIL", "accounting storage is disabled -> set slurm-status-command: squeue"),
        (None, OFF, None, "FAIL", "names no slurm-status-command, so sacct is used; sacct: Slurm accounting"),
        ("sacct", "", None, "warn", "waited for for ever -> set slurm-status-command: squeue"),
        ("sacct", "", SHORT, "ok", "sacct answers"),
        ("sacct", OFF, SHORT, "FAIL", "no status command works here"),
        ("squeue", "", SHORT, "warn", "after 60 s; under 120 s the plugin uses sacct"),
        ("squeue", OFF, SHORT, "FAIL", "is disabled -> set slurm-init-seconds-before-status-checks: 20"),
        ("squeue", OFF, "exit 1", "FAIL", "an unknown time"),
        ("squeue", None, SHORT, "ok", "squeue answers"),
        ("sacct", None, None, "ok", "squeue answers"),  # the plugin turns to squeue by itself
        ("squeuee", "", None, "FAIL", "'squeuee' -> set it to squeue or sacct"),
    ],
)
def test_what_the_plugin_will_use_must_work(
    setting: str | None, sacct: str | None, scontrol: str | None, level: str, words: str,
    cluster: Fake, make: Make, only: Of,
) -> None:  # fmt: skip
    path = cluster("sacct", sacct or "")
    if sacct is None:
        path.unlink()
    if scontrol:
        cluster("scontrol", scontrol)
    found = only(status.check_status(make({"slurm-status-command": setting} if setting else {})))
    assert found.level == level and words in found.line()


def test_a_shorter_first_check_lets_squeue_be_used(cluster: Fake, make: Make, only: Of) -> None:
    cluster("scontrol", SHORT)
    settings = {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 20}
    assert only(status.check_status(make(settings))).level == "ok"


def test_a_controller_that_does_not_answer_is_a_failure(cluster: Fake, make: Make, only: Of) -> None:
    cluster("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    found = only(status.check_status(make({"slurm-status-command": "squeue"})))
    assert found.level == "FAIL" and "Unable to contact" in found.text


def test_a_hanging_squeue_is_a_failure_and_a_slow_one_a_warning(
    cluster: Fake, make: Make, only: Of, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cotdistill.orchestration.doctor.shell.TIMEOUT", 1.0)
    monkeypatch.setattr(status, "SLOW", 0.2)
    cluster("squeue", "/bin/sleep 0.4")
    assert only(status.check_status(make({"slurm-status-command": "squeue"}))).level == "warn"
    cluster("squeue", "/bin/sleep 60")
    found = only(status.check_status(make({"slurm-status-command": "squeue"})))
    assert found.level == "FAIL" and "no answer in 1 s" in found.text

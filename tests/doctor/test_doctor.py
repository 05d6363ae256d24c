"""The whole command: a line a check, an exit code, and never a traceback, whatever Slurm prints."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cotdistill.cli import main
from cotdistill.orchestration.doctor import checks
from cotdistill.orchestration.doctor.finding import Finding

Fake = Callable[..., Path]
Make = Callable[..., Any]
Of = Callable[[Any], Any]
Doctor = Callable[..., tuple[int, list[str]]]

SLURM = ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "srun", "sacct", "nvidia-smi")
PROFILE = {"executor": "slurm", "jobs": 10, "slurm-status-command": "squeue", "retries": 1}


@pytest.fixture
def doctor(work: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run the command on a small grid; its exit code and lines."""
    grid = {
        "experiment": "small", "datasets": ["demo"], "methods": ["dss"], "seeds": [0],
        "students": [{"name": "mini", "scratch": {}}], "training": {"device": "cpu"},
    }  # fmt: skip
    (work / "config.yaml").write_text(yaml.safe_dump(grid))
    (work / "slurm").mkdir()
    (work / "slurm" / "config.v9+.yaml").write_text(yaml.safe_dump(PROFILE))

    def run(*arguments: str) -> tuple[int, list[str]]:
        code = main(["doctor", *arguments])
        captured = capsys.readouterr()
        assert captured.err == ""
        return code, captured.out.splitlines()

    return run


def names(lines: list[str]) -> list[tuple[str, str]]:
    return [(line[:4].strip(), line[6:13].strip()) for line in lines]


def test_a_laptop_without_slurm_skips_its_checks_and_runs_the_rest(doctor: Doctor) -> None:
    code, lines = doctor()
    assert code == 0
    found = dict((name, level) for level, name in names(lines))
    assert {name for name, level in found.items() if level == "skip"} == {
        "slurm", "request", "status", "orphans", "node"}  # fmt: skip
    assert {found[name] for name in ("profile", "lock", "student", "data", "disk", "gpu")} == {"ok"}


def test_slurm_that_is_meant_and_missing_is_a_failure(doctor: Doctor) -> None:
    code, lines = doctor("--profile", "slurm")
    assert code == 1 and ("FAIL", "slurm") in names(lines) and ("skip", "request") in names(lines)
    assert "gpu" not in dict(names(lines)).values(), "jobs would not run on this machine"


def test_a_profile_that_is_named_and_missing_is_a_failure(doctor: Doctor) -> None:
    code, lines = doctor("--profile", "nope")
    assert code == 1 and lines[0].startswith("FAIL  profile  no profile 'nope'")


def test_a_good_cluster_is_all_ok(doctor: Doctor, cluster: Fake, work: Path) -> None:
    code, lines = doctor()
    assert code == 0 and {level for level, _ in names(lines)} == {"ok"}, lines
    assert not (work / "results").exists()


GARBAGE = {
    "nothing": "",
    "a failure without words": "exit 1",
    "bytes": "/usr/bin/head -c 3000 /dev/urandom; /usr/bin/head -c 3000 /dev/urandom >&2",
    "a failure in bytes": "/usr/bin/head -c 3000 /dev/urandom >&2; exit 200",
    "bars": "echo '||||||||'; echo '1|2|3|4|5|6|7|8|9'",
    "numbers": "echo 99999999999999999999999999999999999999; echo -1; echo 1e999",
    "escapes": "printf '\\033[2J\\033]0;evil\\007\\r\\n4711\\r\\n'",
    "orders": "echo 'MinJobAge = 9999999999999999999999'; echo 'gpu*|9999999999-99:99:99'",
    "killed": "kill -9 $$",
    "a hang": "/bin/sleep 60",
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_whatever_commands_print_there_are_only_lines(
    body: str, doctor: Doctor, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cotdistill.orchestration.doctor.shell.TIMEOUT", 0.2)
    for name in SLURM:
        fake(name, body)
    # sbatch talks sense until it is asked: so the other commands get their say too
    fake("sbatch", f'case "$*" in *--version*) echo slurm 24;; *--test-only*) exit 0;; *) {body}\n;; esac')
    code, lines = doctor("--job-timeout", "0.3")
    assert code in (0, 1) and all(line.isprintable() for line in lines)
    assert all(level in ("ok", "warn", "FAIL", "skip") for level, _ in names(lines))
    assert not any("check itself failed" in line for line in lines), lines
    assert {"status", "orphans", "node"} <= {name for _, name in names(lines)}


def test_a_check_that_breaks_is_a_failure_and_the_others_run(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(site: Any) -> Any:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(checks, "CHECKS", (checks.Check("data", broken), *checks.CHECKS))
    code, lines = doctor()
    assert code == 1 and ("ok", "disk") in names(lines)
    (line,) = (line for line in lines if line.startswith("FAIL"))
    assert "the check itself failed: RuntimeError: first line second line" in line


def test_a_terminal_without_the_letters_gets_the_line_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert checks._print(Finding("FAIL", "data", "größe"))
    assert stream.buffer.getvalue().startswith(b"FAIL  data     gr")  # type: ignore[attr-defined]


def test_a_faulty_config_is_one_line(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "config.yaml").write_text("experiment: e\n")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err.startswith("error: config.yaml: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_killed_doctor_takes_its_job_and_its_files_along(
    number: int, doctor: Doctor, cluster: Fake, work: Path
) -> None:
    cluster("sbatch", 'case "$*" in *--version*) echo slurm 24;; esac; echo 4711')
    cluster("squeue", "echo 'PENDING|Resources|'")
    cluster("scancel", f'echo "$@" > {work}/cancelled')
    process = subprocess.Popen([sys.executable, "-m", "cotdistill", "doctor"], stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 30
    while not list(work.glob("results/.cotdistill-doctor-*/here")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == "error: interrupted\n"
    assert "--name=cotdistill-doctor-" in (work / "cancelled").read_text()
    assert not (work / "results").exists()


def test_nothing_heavy_is_imported(doctor: Doctor) -> None:
    code = (
        "import sys\nfrom cotdistill.cli import main\nmain(['doctor'])\n"
        "print(*{'torch', 'transformers', 'pandas', 'snakemake', 'huggingface_hub'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == ""

"""A work folder of its own, commands that are small shell scripts, and the site that the checks look at."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cotdistill.orchestration.doctor import job, shell
from cotdistill.orchestration.doctor.finding import Finding
from cotdistill.orchestration.doctor.profile import Profile
from cotdistill.orchestration.doctor.site import Site
from cotdistill.orchestration.workflow import Workflow
from cotdistill.runs.experiment import parse

Fake = Callable[..., Path]
Make = Callable[..., Site]

COMPUTE = {"threads": 2, "mem_mb": 3000, "runtime": 90}

RUNS_THE_JOB = """
for word; do case "$word" in
  --test-only) echo "sbatch: Job 3 to start at 2030-01-01T00:00:00 using 1 processors" >&2; exit 0;;
  --version) echo "slurm 24.05.1"; exit 0;;
  --output=*) log="${word#--output=}";;
  --wrap=*) script="${word#--wrap=}";;
esac; done
echo 4711
/bin/sh -c "$script" > "$log" 2>&1 < /dev/null
"""
"""an sbatch that says yes, and runs the job at once on this machine"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, no command on PATH but this Python's own, and little patience."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("COTDISTILL_DATA", "HF_HUB_OFFLINE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shell, "TIMEOUT", 3.0)
    monkeypatch.setattr(job, "ASK", 0.1)
    monkeypatch.setattr(job, "GRACE", 0.5)
    yield folder
    os.chdir("/")
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Put a command on PATH: the body of a shell script. It finds nothing on PATH but its like."""

    def make(name: str, body: str = "") -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def cluster(fake: Fake) -> Fake:
    """Commands of a cluster where all is well; replace what a test wants otherwise."""
    fake("sbatch", RUNS_THE_JOB)
    fake("scontrol", 'echo "MinJobAge               = 300 sec"')
    fake("sinfo", 'echo "debug|30:00"; echo "gpu*|1-00:00:00"')
    for name in ("squeue", "scancel", "srun", "sacct"):
        fake(name)
    fake("cotdistill")
    return fake


def config(**changes: Any) -> dict[str, Any]:
    """The values of a small grid: two runs, a student from scratch, no GPU."""
    return {
        "experiment": "small", "datasets": ["demo"], "methods": ["dss", "finetune"], "seeds": [0],
        "students": [{"name": "mini", "scratch": {}, "compute": COMPUTE}],
        "training": {"device": "cpu"}, **changes,
    }  # fmt: skip


@pytest.fixture
def make() -> Make:
    """A site with this profile; keywords replace top-level keys of the config."""

    def build(settings: dict[str, Any] | None = None, *, wait: float = 20, **changes: Any) -> Site:
        profile = Profile(Path("slurm/config.yaml"), {"executor": "slurm", **(settings or {})})
        values = parse(config(**changes), "tests").model_dump(mode="json")
        return Site("grid.yaml", Workflow(values, "grid.yaml"), profile, "", wait)

    return build


@pytest.fixture(scope="session")
def levels() -> Callable[[Any], list[tuple[str, str]]]:
    """The levels and names of findings."""

    def of(findings: Any) -> list[tuple[str, str]]:
        return [(finding.level, finding.name) for finding in findings]

    return of


@pytest.fixture(scope="session")
def only() -> Callable[[Any], Finding]:
    """The one finding that there must be."""

    def of(findings: Any) -> Finding:
        (finding,) = list(findings)
        return finding

    return of


@pytest.fixture(scope="session", autouse=True)
def importable() -> Iterator[None]:
    """The doctor's job runs this Python with this package, wherever it lies."""
    import cotdistill

    with pytest.MonkeyPatch.context() as patch:
        source = str(Path(cotdistill.__file__).parents[1])
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])))
        assert sys.executable
        yield

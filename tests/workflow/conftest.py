"""Work folders with the workflow in them; one finished tiny grid is made once and copied.

Each holds a copy of the package, first on the children's PYTHONPATH, so that a test can edit code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

import cotdistill
from cotdistill.runs.experiment import load
from cotdistill.runs.grid import Run, expand

ROOT = Path(__file__).parents[2]
CONFIG = "tiny.yaml"


def tiny() -> dict[str, Any]:
    """A grid of two methods and two seeds, as small as it can be."""
    return {
        "experiment": "tiny",
        "datasets": ["demo"],
        "students": [
            {"name": "mini", "scratch": {"d_model": 16, "d_ff": 16, "d_kv": 8, "heads": 2, "layers": 1,
                                         "vocabulary": 128}},
        ],
        "methods": ["dss", {"name": "mi", "beta": 0.1}],
        "seeds": [0, 1],
        "training": {"steps": 4, "batch_size": 8, "eval_every": 4, "log_every": 2, "checkpoint_every": 2,
                     "learning_rate": 0.003, "device": "cpu"},
        "evaluation": {"max_new_tokens": 4, "batch_size": 259},
    }  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker for all that use the finished grid: a second would only wait for the first to make it."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("finished"))


@dataclass
class Bench:
    """A work folder: run commands in it, change its config and its copy of the package."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Bench:
        """A fresh checkout in `root`, as far as the workflow needs one."""
        root.mkdir(exist_ok=True)
        for name in ("Snakefile", "environment.yml", "config.yaml"):
            shutil.copy2(ROOT / name, root)
        for name in ("config", "workflow", "profiles"):
            shutil.copytree(ROOT / name, root / name)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(cotdistill.__file__).parent, root / "lib" / "cotdistill", ignore=ignore)
        bench = cls(root)
        bench.configure()
        return bench

    def configure(self, name: str = CONFIG, **changes: Any) -> None:
        """Write the tiny grid with changed top-level keys; `training` is a dict of changes."""
        values = {**tiny(), **changes, "training": {**tiny()["training"], **changes.get("training", {})}}
        (self.root / name).write_text(yaml.safe_dump(values))

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace text in the copy of the package."""
        path = self.root / "lib" / "cotdistill" / module
        text = path.read_text()
        assert old in text, f"{module} has changed: choose another place to edit"
        path.write_text(text.replace(old, new, 1))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m <command>` in the folder; stdout and stderr as one text in `stdout`."""
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root, env=self.environment(**environment), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=570,
        )  # fmt: skip

    def environment(self, **more: str) -> dict[str, str]:
        """The children's environment: this Python, the copied package, no GPU, no data, no network."""
        kept = {key: value for key, value in os.environ.items() if key != "COTDISTILL_DATA"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
        return {**kept, **nowhere, "PATH": path, "PYTHONPATH": str(self.root / "lib"),
                "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}  # fmt: skip

    def snakemake(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Snakemake on the tiny grid."""
        return self.run("snakemake", "--configfile", CONFIG, *arguments, **environment)

    def plan(self, *arguments: str) -> dict[str, int]:
        """The number of jobs by rule (`all` left out) that Snakemake would run on the tiny grid."""
        found = self.snakemake("-n", *arguments)
        assert found.returncode == 0, found.stdout
        return jobs(found.stdout)

    def runs(self) -> list[Run]:
        """The runs of the tiny grid. Their folders are relative to the work folder."""
        return expand(load(self.root / CONFIG))


def jobs(output: str) -> dict[str, int]:
    """Job counts by rule in what a dry run printed."""
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:")[-1].split("\n\n")[0]
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    assert counts.pop("total") == sum(counts.values())
    counts.pop("all", None)
    return counts


@pytest.fixture
def count_jobs() -> Any:
    """The function that reads job counts from a dry run's output."""
    return jobs


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh work folder without results."""
    return Bench.make(tmp_path / "work")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder where `cotdistill reproduce` ran the tiny grid (its output: `reproduce.out`)."""
    base = tmp_path_factory.getbasetemp()
    # without workers the parent is the folder of all sessions: an older one's grid would be taken
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "workflow-finished"
    with filelock.FileLock(f"{shared}.lock"):
        if not shared.exists():
            making = Bench.make(tmp_path_factory.mktemp("making") / "work")
            found = making.run("cotdistill", "reproduce", "--config", CONFIG, "--cores", "2")
            assert found.returncode == 0, found.stdout
            (making.root / "reproduce.out").write_text(found.stdout)
            making.root.rename(shared)
    return shared


@pytest.fixture
def grid(finished: Path, tmp_path: Path) -> Bench:
    """A copy of the finished tiny grid, to change at will."""
    shutil.copytree(finished, tmp_path / "work", symlinks=True)
    return Bench(tmp_path / "work")


@pytest.fixture(scope="session")
def untouched(finished: Path) -> Bench:
    """The finished tiny grid itself, to look at only."""
    return Bench(finished)

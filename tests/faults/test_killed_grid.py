"""A grid whose Snakemake and workers are all killed, and whose bookkeeping is corrupt, ends the same."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cotdistill.common.errors import UserError
from cotdistill.orchestration.reproduce import _unlock
from cotdistill.runs.experiment import load
from cotdistill.runs.grid import Run, expand

CHANGES = {"methods": ["dss"], "training": {"steps": 60, "eval_every": 30, "checkpoint_every": 2}}


def work(root: Path) -> Any:
    """A work folder with the workflow in it, as the tests of the workflow make them."""
    path = Path(__file__).parents[1] / "workflow" / "conftest.py"
    spec = importlib.util.spec_from_file_location("workflow_bench", path)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bench = module.Bench.make(root)
    bench.configure(**CHANGES)
    return bench


def kill_all(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL for a process and all that it started; returns how many those were."""
    found = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in found:
        one.kill()
    process.wait()
    psutil.wait_procs(found)
    return len(found)


@pytest.mark.slow
def test_a_killed_grid_started_again_ends_the_same(
    tmp_path: Path, forks: Any, numbers: Any, monkeypatch: Any
) -> None:
    bench = work(tmp_path / "work")
    monkeypatch.chdir(bench.root)
    runs = expand(load(Path("tiny.yaml")))
    targets = [str(run.folder / "metrics.json") for run in runs]
    command = [sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml", "--cores", "2", *targets]
    with open(tmp_path / "killed.log", "wb") as log:
        process = subprocess.Popen(command, env=bench.environment(), stdout=log, stderr=log)
        until = time.monotonic() + 300
        while not all(list(run.folder.glob("state/*/step-*")) for run in runs):
            assert time.monotonic() < until and process.poll() is None, (tmp_path / "killed.log").read_text()
            time.sleep(0.01)
        with pytest.raises(UserError, match=f"a snakemake works in this folder.*{process.pid}"):
            _unlock(load(Path("tiny.yaml")), tmp_path / "unlock.log", Path("tiny.yaml"))
        assert kill_all(process) >= 3, "Snakemake and two jobs"
    assert list(Path(".snakemake", "locks").iterdir()), "it had no time to remove its lock"
    _unlock(load(Path("tiny.yaml")), tmp_path / "unlock.log", Path("tiny.yaml"))
    incomplete(bench, targets)
    again = bench.snakemake("--cores", "2", *targets)
    assert again.returncode == 0, again.stdout
    for run in runs:
        log_file = Path(f"results/tiny/logs/train/{run.id}.log").read_text()
        assert "taking over: " in log_file and f"{run.id}: going on from step " in log_file
    assert {run.id: numbers(run) for run in runs} == alone(tmp_path, forks, numbers)
    # each record in each of the ways: which of them Snakemake reads depends on their order
    for way in (b"", b"{", bytes(100), b"\xff" * 100, b"[]", b'{"rule": [1]}'):
        corrupt_metadata(bench, way)
        found = bench.snakemake("-n", "--cores", "2", *targets)
        assert found.returncode == 0 and "Traceback" not in found.stdout, found.stdout
    found = bench.snakemake("--cores", "2", *targets)
    assert found.returncode == 0 and "Traceback" not in found.stdout, found.stdout


def incomplete(bench: Any, targets: list[str]) -> None:
    """Mark outputs as of jobs cut off, as Snakemake does."""
    folder = bench.root / ".snakemake" / "incomplete"
    assert list(folder.iterdir()), "the killed jobs' outputs"
    for target in targets:
        (folder / base64.b64encode(target.encode()).decode()).touch()


def alone(root: Path, forks: Any, numbers: Any) -> dict[str, Any]:
    """The numbers of the same runs, trained without Snakemake and never disturbed."""
    values = json.loads(Path("results/tiny/grid.json").read_text())
    config = root / "alone.json"
    config.write_text(json.dumps({**values, "results": str(root / "alone")}))
    runs: list[Run] = expand(load(config))
    shutil.copytree("results/tiny/prepared", root / "alone" / "tiny" / "prepared")
    pids = [forks("train", "--config", config, "--run", run.id, log=root / "alone.log") for run in runs]
    assert [forks.wait(pid) for pid in pids] == [0] * len(runs), (root / "alone.log").read_text()
    return {run.id: numbers(run) for run in runs}


def corrupt_metadata(bench: Any, content: bytes) -> None:
    """What Snakemake keeps of its jobs: every record broken."""
    files = [path for path in (bench.root / ".snakemake" / "metadata").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        path.write_bytes(content)

"""Disks that run full or turn read-only at the worst moment: one line, and afterwards the same numbers.

Where no disk can be mounted, tests/cli/test_bad_input.py holds the same with a limit on the size of files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.config.grid import Run

# executed in the process to be disturbed: the fault comes when a function is called for the n-th time
WHEN = """
import {module} as module
undisturbed, left = module.{name}, [{count}]
def disturbed(*arguments, **more):
    left[0] -= 1
    if left[0] == 0:
        disturb()
    return undisturbed(*arguments, **more)
module.{name} = disturbed
"""
FAULTS = {
    "full": """
def disturb():
    with open({disk!r} + "/filler", "wb", buffering=0) as handle:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    handle.write(bytes(size))
            except OSError:
                continue
""",
    "readonly": """
import subprocess
def disturb():
    subprocess.run(["mount", "-o", "remount,ro", {disk!r}], check=True)
""",
}
SAID = {"full": "No space left on device", "readonly": "Read-only file system"}
PLACES = {
    "the lease": ("cotdistill.jobs.lease", "Lease._create", 1),
    "a state": ("cotdistill.training.state", "State.save", 2),
    "a line of the history": ("cotdistill.training.history", "History.write", 1),
    "the best checkpoint": ("cotdistill.students", "save", 1),
    "the outputs": ("cotdistill.training.outputs", "writing", 1),
    "the outputs' places": ("cotdistill.training.outputs", "link", 3),
    "the answers": ("cotdistill.evaluation.stored", "write", 1),
}
# links take no room on a disk
CASES = [("full", place) for place in PLACES if place != "the outputs' places"]
CASES += [("readonly", place) for place in ("a state", "the outputs' places", "the answers")]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "place"), CASES)
def test_a_disk_that_refuses_while_training_writes(
    forks: Any, tiny: Any, disk: Any, tmp_path: Path, trained: Callable[[str], Run], numbers: Any,
    fault: str, place: str,
) -> None:  # fmt: skip
    log = tmp_path / "log"
    config, run = tiny.config_file(disk.root, "mi", evaluation={"rationales": True})
    module, name, count = PLACES[place]
    first = FAULTS[fault].format(disk=str(disk.root)) + WHEN.format(module=module, name=name, count=count)
    command = ("train", "--config", config, "--run", run.id)
    assert forks.wait(forks(*command, log=log, first=first)) == 1, log.read_text()
    line = log.read_text().splitlines()[-1]
    assert line.startswith("error: ") and "cannot write" in line and SAID[fault] in line, log.read_text()
    assert "Traceback" not in log.read_text()
    disk.mend()
    if fault != "readonly":  # which keeps what there is, to the last
        assert not [path for path in run.folder.rglob("*") if path.name.startswith(".")]
        assert not list((run.folder / "state").glob("lease-*")) or place == "the lease"
    again = tmp_path / "again"
    assert forks.wait(forks(*command, log=again)) == 0, again.read_text()
    assert numbers(run) == numbers(trained("mi"))


RUN = "runs/colours/small/dss/gold/1/0"
COMMANDS = ("evaluate", "collect", "compare", "figures")
OUTPUTS = {
    "evaluate": tuple(f"{RUN}/{name}" for name in ("metrics.json", "predictions.jsonl")),
    "collect": ("results.parquet", "results.csv", "history.parquet"),
    "compare": ("tables/comparison.md", "tables/comparison.csv", "tables/comparison.tex"),
    "figures": ("figures/accuracy.png", "figures/accuracy.txt"),
}


@pytest.mark.slow
def test_a_disk_that_refuses_tables_and_figures(
    tiny: Any, disk: Any, trained: Callable[[str], Run], command: Callable[..., str]
) -> None:
    config, run = tiny.config_file(disk.root, "dss", evaluation={"rationales": True})
    shutil.copytree(trained("dss").folder, run.folder)
    folder = disk.root / "tiny"
    for name in COMMANDS:
        arguments = (name, "--config", config, *(("--run", run.id) if name == "evaluate" else ()))
        for disturb, said in ((disk.fill, SAID["full"]), (disk.readonly, SAID["readonly"])):
            disturb()
            line = command(*arguments)
            assert "cannot write" in line and said in line, (name, line)
            disk.mend()
            assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
        assert command(*arguments) == ""
        before = {path: (folder / path).read_bytes() for path in OUTPUTS[name]}
        assert command(*arguments) == ""
        assert {path: (folder / path).read_bytes() for path in OUTPUTS[name]} == before

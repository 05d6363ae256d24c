"""Disks that run full or turn read-only at the worst moment: one line, and afterwards the same numbers.

Where no disk can be mounted, tests/cli/test_bad_input.py holds the same with a limit on the size of files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.runs.grid import Run

SAID = {"full": "No space left on device", "readonly": "Read-only file system"}
# where a run is disturbed, in the order in which it comes there; each start meets the next of them
PLACES = {
    "the lease": ("cotdistill.runs.lease", "Lease._create", 1),
    "a line of the history": ("cotdistill.runs.history", "History.write", 1),
    "the best checkpoint": ("cotdistill.students", "save", 1),
    "a state": ("cotdistill.runs.state", "State.save", 2),
    "the outputs": ("cotdistill.runs.outputs", "open_for_writing", 1),
    "the outputs' places": ("cotdistill.runs.outputs", "link", 3),
    "the answers": ("cotdistill.runs.answers", "store", 1),
}
# links take no room on a disk
CASES = [
    ("full", [place for place in PLACES if place != "the outputs' places"]),
    ("readonly", ["a state", "the outputs' places"]),  # a run whose outputs are saved answers no more
    ("readonly", ["the answers"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "places"), CASES)
def test_a_disk_that_refuses_while_training_writes(
    forks: Any, tiny: Any, disk: Any, at_call: Any, tmp_path: Path, trained: Callable[[str], Run],
    numbers: Any, fault: str, places: list[str],
) -> None:  # fmt: skip
    config, run = tiny.config_file(disk.root, "mi", evaluation={"rationales": True})
    command = ("train", "--config", config, "--run", run.id)
    for place in places:
        log = tmp_path / place
        first = at_call(*PLACES[place], disk.filling() if fault == "full" else disk.refusing())
        assert forks.wait(forks(*command, log=log, first=first)) == 1, (place, log.read_text())
        text = log.read_text()
        line = text.splitlines()[-1]
        assert line.startswith("error: ") and "cannot write" in line and SAID[fault] in line, (place, text)
        assert "Traceback" not in text
        disk.mend()
        if fault != "readonly":  # which keeps what there is, to the last
            assert not [path for path in run.folder.rglob("*") if path.name.startswith(".")], place
            assert not list((run.folder / "state").glob("lease-*")) or place == "the lease"
    again = tmp_path / "again"
    assert forks.wait(forks(*command, log=again)) == 0, again.read_text()
    assert numbers(run) == numbers(trained("mi"))


RUN = "runs/colours/small/dss/gold/1/0"
COMMANDS = ("evaluate", "collect", "compare", "figures")
OUTPUTS = {
    "evaluate": tuple(f"{RUN}/{name}" for name in ("metrics.json", "predictions.jsonl")),
    "collect": ("results.parquet", "results.csv", "history.parquet", "measures.parquet", "examples.parquet",
                "samples.parquet"),
    "compare": ("tables/comparison.md", "tables/comparison.csv", "tables/comparison.tex",
                "tables/samples.html"),
    "figures": ("figures/accuracy.png", "figures/accuracy.txt"),
}  # fmt: skip


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

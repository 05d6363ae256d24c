"""A stage that is killed between writing a file and renaming it: called again, it leaves nothing of that."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.runs.grid import Run, expand
from tests.reporting.conftest import make_experiment, write_run

pytestmark = pytest.mark.slow

KILL = "os.kill(os.getpid(), signal.SIGKILL)"
"""what a stage does in place of its n-th rename"""


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def read(folder: Path) -> dict[str, bytes]:
    """What the stages wrote; a database and what tells times of the call are left out."""
    kinds = (".csv", ".md", ".html", ".tex", ".png", ".pdf", ".txt", ".parquet")
    files = (path for path in folder.rglob("*") if path.suffix in kinds)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_killed_stages_of_a_finished_grid(forks: Any, at_call: Callable[..., str], tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "results", datasets=["cqa"], methods=["dss", "mi"], seeds=[0, 1])
    for one in expand(experiment):
        write_run(one, steps=20)
    config, log = tmp_path / "made.json", tmp_path / "log"
    config.write_text(experiment.model_dump_json())
    results = Path(experiment.results)
    stages = {"collect": (1, 2, 6), "compare": (1, 2, 9), "figures": (1, 2, 20), "track": (1, 2)}
    for stage, renames in stages.items():
        killed = {}
        for number in renames:
            first = at_call("cotdistill.common.files", "_sync", number, KILL)
            code = forks.wait(forks(stage, "--config", config, log=log, first=first))
            killed[number] = code == -signal.SIGKILL and len(hidden(results))
        # a killed call removes what the one before left of the targets that it came to
        assert killed[1] and killed[2], (stage, killed, log.read_text())
        assert forks.wait(forks(stage, "--config", config, log=log)) == 0, log.read_text()
        assert hidden(results) == [], stage
        found = read(results)
        assert forks.wait(forks(stage, "--config", config, log=log)) == 0, log.read_text()
        assert read(results) == found, stage


def test_killed_preparing_and_evaluating(
    forks: Any, tiny: Any, at_call: Callable[..., str], tmp_path: Path, trained: Callable[[str], Run],
    numbers: Any,
) -> None:  # fmt: skip
    config, run = tiny.config_file(tmp_path, "dss", evaluation={"rationales": True})
    shutil.copytree(trained("dss").folder, run.folder)
    shutil.rmtree(run.prepared)
    shutil.rmtree(run.files.answers)  # to be answered again, which writes the most
    log = tmp_path / "log"
    commands = {
        "prepare": ("--dataset", run.dataset.name, "--student", run.student.name),
        "evaluate": ("--run", run.id),
    }
    for name, options in commands.items():
        for number in (1, 2, 3):
            first = at_call("cotdistill.common.files", "_sync", number, KILL)
            forks.wait(forks(name, "--config", config, *options, log=log, first=first))
            assert hidden(run.experiment.folder), (name, number, log.read_text())
        assert forks.wait(forks(name, "--config", config, *options, log=log)) == 0, log.read_text()
        assert hidden(run.experiment.folder) == [], name
    assert numbers(run) == numbers(trained("dss"))

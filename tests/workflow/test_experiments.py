"""`cotdistill status` and `plan`: which experiments and runs are there; the command that opens a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cotdistill.cli import main
from cotdistill.config.models import Experiment
from cotdistill.orchestration.endings import describe_store
from cotdistill.orchestration.progress import format_line, list_statuses
from cotdistill.orchestration.snakemake import Jobs, list_failed_logs
from cotdistill.orchestration.workflow import freeze
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import expand


def make(**changes: Any) -> Experiment:
    values = {"experiment": "e", "datasets": ["demo"], "students": [{"name": "mini", "scratch": {}}],
              "methods": ["dss", "mi"], "seeds": [0, 1], "training": {"steps": 200}, **changes}  # fmt: skip
    return parse(values, "test.yaml")


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call `cotdistill status` in an empty folder; returns the lines that it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, code: int = 0) -> list[str]:
        assert main(["status", *arguments]) == code
        found = capsys.readouterr()
        assert not found.err
        return found.out.splitlines()

    return call


def finish(experiment: Experiment, runs: int) -> None:
    for run in expand(experiment)[:runs]:
        run.folder.mkdir(parents=True)
        for name in ("training.json", "metrics.json"):
            (run.folder / name).write_text(json.dumps({"hash": run.hash}))


def test_without_a_config_the_experiments_that_are_there(status: Any) -> None:
    for name, done in (("demo", 4), ("own grid", 1)):
        experiment = make(experiment=name.replace(" ", "-"))
        freeze(experiment)
        finish(experiment, done)
    Path("results/mlartifacts").mkdir()
    Path("results/mlflow.db").touch()
    assert status() == [
        "demo: 4 runs: 4 done; 0.00 GPU hours used",
        "  more: cotdistill status --config results/demo/grid.json",
        "own-grid: 4 runs: 1 done, 3 waiting; 0.00 GPU hours used",
        "  more: cotdistill status --config results/own-grid/grid.json",
    ]
    assert status("--config", "results/demo/grid.json") == ["demo: 4 runs: 4 done; 0.00 GPU hours used"]
    lines = status("--all")
    assert len(lines) == 2 * 5 and sum(line.startswith("done ") for line in lines) == 5


def test_the_papers_config_beside_it_is_not_meant(status: Any) -> None:
    Path("config.yaml").write_text("experiment: [")
    freeze(make())
    assert status()[0] == "e: 4 runs: 4 waiting; 0.00 GPU hours used"


def test_a_moved_folder_is_read_where_it_lies(status: Any) -> None:
    experiment = make()
    freeze(experiment)
    finish(experiment, 2)
    Path("results").rename("my results")
    assert status("--results", "my results") == [
        "e: 4 runs: 2 done, 2 waiting; 0.00 GPU hours used",
        "  more: cotdistill status --config 'my results/e/grid.json'",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"experiment": 1}', "\x00\x00"])
def test_a_grid_that_cannot_be_read_hides_no_other(text: str, status: Any) -> None:
    freeze(make())
    other = Path("results/broken/grid.json")
    other.parent.mkdir()
    other.write_text(text)
    first, *rest = status()
    assert first.startswith("broken: results/broken/grid.json") and len(rest) == 2


def test_an_experiment_without_its_grid_is_named(status: Any) -> None:
    finish(make(), 1)
    (line,) = status()
    assert line.startswith("e: no results/e/grid.json ") and "--config" in line


def test_no_experiments(status: Any) -> None:
    advice = "--config names an experiment's config"
    assert status() == [f"no experiments: there is no folder results here; {advice}"]
    Path("results").mkdir()
    assert status() == [f"no experiments in results; {advice}"]


def test_plan_lists_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    freeze(make())
    assert main(["plan", "--runs", "--config", "results/e/grid.json"]) == 0
    assert capsys.readouterr().out.splitlines() == [run.id for run in expand(make())]
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "cotdistill plan --runs" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "--all"], ["plan", "--runs"], ["plan"]], ids=" ".join
)
def test_a_reader_that_goes_away_is_no_fault(arguments: list[str], tmp_path: Path) -> None:
    experiment = make(experiment="e", seeds=list(range(300)), results=str(tmp_path / "results"))
    freeze(experiment)
    config = ["--config", str(experiment.folder / "grid.json")]
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-m", "cotdistill", *arguments, *(config if arguments != ["status"] else [])],
        cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    os.close(writer)
    assert found.stderr == "" and found.returncode == 1


# --- the stage in the line of progress

LOG = """\
Job 5: prepare demo for mini
Reason: Missing output files
Finished jobid: 5 (Rule: prepare)
Job 7: train demo/mini/dss/gold/1/1
Job 8: evaluate demo/mini/dss/gold/1/0
Job 3: draw figures
"""


def test_the_line_names_the_stages_at_work(tmp_path: Path) -> None:
    log = tmp_path / "snakemake.log"
    jobs = Jobs(log)
    assert jobs.list_stages() == [], "no log yet"
    log.write_text(LOG + "Job 9: half a li")
    assert jobs.list_stages() == ["evaluate demo/mini/dss/gold/1/0", "draw figures"]
    with open(log, "a") as handle:
        handle.write("ne\nError in rule figures:\n    message: None\n    jobid: 3\n")
        handle.write("Finished jobid: 8 (Rule: evaluate)\n")
    assert jobs.list_stages() == ["half a line"]
    text = format_line(list_statuses(make()), 60.0, 0, ["a", "b", "c"])
    assert text == "[ 1.0 min] 0/4 runs done, now: a, b ..."


def test_a_finished_grid_whose_figures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finish(make(), 4)
    text = format_line(list_statuses(make()), 90.0, 0, ["draw figures"])
    assert text == "[ 1.5 min] 4/4 runs done, now: draw figures"


def test_logs_of_failed_jobs_are_found_with_their_blanks(tmp_path: Path) -> None:
    log = tmp_path / "snakemake.log"
    error = "Error in rule train:\n    message: None\n    log: {} (check log file(s) for error details)\n"
    before = error.format("a b/c.log") + "text\n" + error.format("d.log") + error.format("d.log")
    asked = "Terminating processes on user request, this might take some time.\n"
    log.write_text(before + asked + error.format("e.log"))
    assert list_failed_logs(log) == [Path("a b/c.log"), Path("d.log")], "not what was asked to stop"


# --- the command that opens the store


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "sqlite:///results/mlflow.db (`make mlflow` opens it)"),
        ({"results": "out"}, "sqlite:///out/mlflow.db (`make mlflow RESULTS=out` opens it)"),
        ({"tracking": {"uri": "sqlite:///own.db"}},
         "sqlite:///own.db (`mlflow ui --backend-store-uri sqlite:///own.db` opens it)"),
        ({"tracking": {"uri": "http://127.0.0.1:5000"}}, "http://127.0.0.1:5000 (open it in a browser)"),
    ],
    ids=["by default", "another folder", "a file", "a server"],
)  # fmt: skip
def test_the_command_that_opens_the_store(changes: dict[str, Any], expected: str) -> None:
    assert describe_store(make(**changes)) == expected

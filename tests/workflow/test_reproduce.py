"""`cotdistill reproduce`: what a person reads while and after a grid runs. See also test_finished_grid."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cotdistill.orchestration.endings import explain_failure
from cotdistill.report.figures import FIGURES


def test_prints_table_and_paths(untouched: Any) -> None:
    text = (untouched.root / "reproduce.out").read_text()
    lines = text.splitlines()
    assert lines[0] == "running tiny.yaml through Snakemake (its own log: results/tiny/logs/snakemake.log)"
    table = text.split("table    ")[0]
    assert any("dss" in line for line in table.splitlines()[1:]) and "mi" in table
    assert "table    results/tiny/tables/comparison.md (also .html, .csv, .tex)" in lines
    for name in FIGURES.names():
        assert f"figure   results/tiny/figures/{name}.png (also .pdf)" in lines
    assert "report   results/tiny/report.html" in lines
    assert "MLflow   sqlite:///results/mlflow.db (`make mlflow` opens it)" in lines
    assert "Traceback" not in text and "\x1b" not in text, "no terminal codes in a file"


def test_outside_a_checkout(bench: Any) -> None:
    (bench.root / "Snakefile").unlink()
    found = bench.run("cotdistill", "reproduce", "--config", "tiny.yaml")
    assert found.returncode == 1
    assert found.stdout == (
        f"error: no Snakefile in {bench.root}: run this in the root of the checkout\n"
    )
    assert not (bench.root / "results").exists()


def test_fault_of_the_workflow_itself_shows_the_end_of_its_log(bench: Any) -> None:
    (bench.root / "Snakefile").write_text("rule all:\n    input: 'nowhere'\n")
    found = bench.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "1")
    assert found.returncode == 1
    assert "error: the grid did not finish:" in found.stdout
    assert "Missing input files for rule all" in found.stdout
    assert "Traceback" not in found.stdout


def test_names_the_error_of_each_job_that_failed_this_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {
        "snakemake.log": "error: its own words do not count\n",
        "train/a.log": "step 3\nerror: no room\nwarning: said while ending\n",
        "train/b.log": "trained\n",
        "train/c.log": "error: of an earlier call\n",
    }
    for name, text in logs.items():
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1000, 1000) if "earlier" in text else (3000, 3000))
    explain_failure(tmp_path, tmp_path / "logs" / "snakemake.log", started=2000)
    told = capsys.readouterr().err
    assert told == f"error: the grid did not finish:\n{tmp_path / 'logs/train/a.log'}: no room\n"

"""Folders of any name reach Snakemake, the shell and MLflow as they are, and bad configs end in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.orchestration.links import FOLDER, avoid_patterns
from cotdistill.orchestration.workflow import Workflow, check_config_files, check_for_cluster

ROOT = Path(__file__).parents[2]
HOSTILE = "logs/my results {v2} [x] 'q' \"r\" $$y & ; $(touch made) `touch made` * # % <a> é"
COLOURS = ["red", "blue", "green"]


def workflow(**changes: Any) -> Workflow:
    values = {"experiment": "e", "datasets": ["demo"], "students": [{"name": "mini", "scratch": {}}],
              "methods": ["dss"], "seeds": [0], **changes}  # fmt: skip
    return Workflow(values, "test.yaml")


def write_data(folder: Path) -> None:
    """A dataset of one's own: 24 rows to train, 6 to validate, 6 to test."""
    folder.mkdir()
    rows = [
        {"input": f"colour of thing {n}?", "label": COLOURS[n % 3], "rationale": f"it is {COLOURS[n % 3]}."}
        for n in range(36)
    ]
    for split, part in {"train": rows[:24], "valid": rows[24:30], "test": rows[30:]}.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_a_grid_in_a_folder_with_every_letter(bench: Any) -> None:
    config = "my {config} 'x' $HOME.yaml"
    write_data(bench.root / "my data {v2} [x]")
    (bench.root / "logs").mkdir()
    (bench.root / "logs" / "my").write_text("mine")
    dataset = {"name": "colours", "adapter": "custom", "path": "my data {v2} [x]"}
    bench.configure(config, results=HOSTILE, datasets=[dataset], methods=["dss"], seeds=[0])
    before = {path.name for path in bench.root.iterdir()}
    found = bench.run("cotdistill", "reproduce", "--config", config, "--cores", "2")
    assert found.returncode == 0, found.stdout
    folder = bench.root / HOSTILE.replace("$$", "$")
    assert (folder / "mlflow.db").is_file() and (folder / "tiny" / "report.html").is_file()
    assert (folder / "tiny" / "benchmarks" / "train" / "colours" / "mini" / "dss" / "gold" / "1").is_dir()
    assert (bench.root / "logs" / "my").read_text() == "mine"
    assert {path.name for path in (bench.root / "logs").iterdir()} == {"my", folder.name}
    assert {path.name for path in bench.root.iterdir()} - before <= {".snakemake", "logs"}
    again = bench.run("snakemake", "--configfile", config, "-n")
    assert "Nothing to be done" in again.stdout
    data = bench.root / "my data {v2} [x]" / "train.jsonl"
    data.write_text(data.read_text() + '{"input": "x", "label": "red", "rationale": "r"}\n')
    changed = bench.run("snakemake", "--configfile", config, "-n")
    assert "prepare colours for mini" in changed.stdout, "the data are inputs, also through links"


@pytest.mark.parametrize(
    "results", ["~/cot {HOME}", "${PLACE}/{ ;touch made", "logs/{dataset}/logs/{rest}"]
)
def test_any_folder_is_planned(bench: Any, results: str) -> None:
    home = bench.root / "home of {v2}"
    home.mkdir()
    bench.configure(results=results)
    before = {path.name for path in bench.root.iterdir()}
    found = bench.snakemake("-n", HOME=str(home), PLACE=str(home))
    assert found.returncode == 0, found.stdout
    assert {path.name for path in bench.root.iterdir()} - before <= {".snakemake"}
    assert {path.name for path in home.iterdir()} <= {".cache"}, "Snakemake's own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("experiment: 2024-01-05", "to YAML 2024-01-05 is a date: put it in quotes"),
        ("experiment: a\nexperiment: b", "key 'experiment' stands twice"),
        ("experiment: e\ntracking: {uri: 'http://user:hunter2@host'}", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_snakemake_refuses_a_config_in_one_line(bench: Any, text: str, said: str) -> None:
    values = yaml.safe_load((bench.root / "tiny.yaml").read_text())
    del values["experiment"]
    (bench.root / "tiny.yaml").write_text(yaml.safe_dump(values) + text)
    found = bench.snakemake("-n")
    lines = [line for line in found.stdout.splitlines() if not line.startswith("Using workflow specific")]
    assert found.returncode == 1 and len(lines) == 1, found.stdout
    assert lines[0].startswith("error: ") and said in lines[0] and "hunter2" not in lines[0]


def test_the_default_config_is_read_by_us_first(bench: Any) -> None:
    (bench.root / "config.yaml").write_text(f"experiment: {'[' * 5000}\n")
    found = bench.run("snakemake", "-n")
    assert found.stdout.splitlines()[-1].startswith("error: config.yaml:1: ") and found.returncode == 1


@pytest.mark.parametrize("name", ["a $HOME.yaml", "a `touch b`.yaml", 'a "b".yaml', "a\\b.yaml"])
def test_a_cluster_takes_no_config_that_its_shell_would_read(work: Path, name: str) -> None:
    Path(name).write_text("experiment: e\n")
    check_config_files([name])
    with pytest.raises(SystemExit, match="on a cluster this path must not hold"):
        check_for_cluster([name])
    check_for_cluster(["a (b) {c} 'd' & #.yaml"])


def test_logs_and_benchmarks_are_apart(work: Path) -> None:
    grid = workflow(results="/x/logs/y")
    assert grid.name_log("train", "dataset") == "/x/logs/y/e/logs/train/{dataset}.log"
    assert grid.name_benchmark("train", "dataset") == "/x/logs/y/e/benchmarks/train/{dataset}.tsv"


def test_a_link_is_that_of_its_target(work: Path) -> None:
    target = work / "data {v2}"
    target.mkdir()
    link = avoid_patterns(target)
    assert Path(link).parent == FOLDER and Path(link).resolve() == target
    assert avoid_patterns(Path("data {v2}")) == link and Path(link).lstat().st_mtime == 0
    assert avoid_patterns(Path("data [x] $y")) == "data [x] $y"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COTDISTILL_DATA", raising=False)
    return tmp_path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.text(st.sampled_from("ab/.$ {}[]'\"\\&;|<>*%#!`(),:=@{dataset}"), min_size=1, max_size=30))
def test_snakemake_finds_every_folder_behind_its_pattern(work: Path, results: str) -> None:
    from snakemake.io import apply_wildcards, regex_from_filepattern

    try:
        grid = workflow(results=results)
    except UserError:
        return
    job = {"dataset": "demo", "student": "mini", "rest": "dss/gold/1/0"}
    expected = {
        str(grid.files.metrics): grid.runs["demo/mini/dss/gold/1/0"].files.metrics,
        grid.name_log("train", *job): Path(grid.experiment.folder, "logs/train/demo/mini/dss/gold/1/0.log"),
        f"{grid.prepared}/manifest.json": grid.runs["demo/mini/dss/gold/1/0"].prepared / "manifest.json",
        grid.grid: grid.experiment.folder / "grid.json",
    }
    for pattern, path in expected.items():
        concrete = apply_wildcards(pattern, job)
        assert os.path.realpath(concrete) == os.path.realpath(path)
        assert re.match(regex_from_filepattern(pattern), concrete)
    (asked,) = grid.list_run_files(grid.files.metrics)
    assert os.path.realpath(asked) == os.path.realpath(grid.runs["demo/mini/dss/gold/1/0"].files.metrics)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_passes_paths_on_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "my checkout 'q'"
    scripts = root / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(ROOT / name, root)
    said = 'for word in "$@"; do echo "<$word>"; done'
    for name, script in {"cotdistill": said, "mlflow": said, "python": "exit 0"}.items():
        (scripts / name).write_text(f"#!/bin/sh\n{script}\n")
        (scripts / name).chmod(0o755)
    (root / ".venv" / ".ready").write_text(f"{root}\n")
    name = "my 'c' \"d\" ; touch made `touch made` & #.yaml"
    (root / name).mkdir()
    (root / name / "mlflow.db").touch()
    for target, word in {"reproduce": f"<{name}>", "mlflow": f"<sqlite:///{name}/mlflow.db>"}.items():
        found = subprocess.run(
            ["make", target], cwd=root, text=True, capture_output=True,
            env={**os.environ, "CONFIG": name, "RESULTS": name},
        )  # fmt: skip
        assert found.returncode == 0 and word in found.stdout.splitlines(), found.stderr
    assert not (root / "made").exists()

"""What a person deletes: `status`, `snakemake -n` and `reproduce` say the same, and it is made again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cotdistill.orchestration.deleted import find_deleted, is_store_deleted
from cotdistill.orchestration.progress import list_statuses
from cotdistill.runs.experiment import load, parse

AFTER_RUNS = {"collect": 1, "compare": 1, "figures": 1, "track": 1}
RUN = "runs/demo/mini/dss/gold/1/0"


def again(train: int) -> dict[str, int]:
    return {"train": train, "evaluate": train, **AFTER_RUNS}


# paths below the experiment's folder -> the jobs that are to be done again
DELETED: dict[str, tuple[list[str], dict[str, int]]] = {
    "a run": ([RUN], again(1)),
    "two runs": ([RUN, "runs/demo/mini/mi"], again(3)),
    "all runs": (["runs"], again(4)),
    "metrics of a run": ([f"{RUN}/metrics.json"], {"evaluate": 1, **AFTER_RUNS}),
    "a run without what Snakemake noted": ([RUN, "../../.snakemake"], again(1)),
    "the table that others are made of": (["results.parquet"], AFTER_RUNS),
    "samples": (["samples.parquet"], AFTER_RUNS),
    "the tables of the comparison": (["tables"], {"compare": 1}),
    "a figure": (["figures/accuracy.png"], {"figures": 1, "track": 1}),
    "the mark of tracking": (["tracked.json"], {"track": 1}),
    "the store": (["../mlflow.db"], {"track": 1}),
    "the store and a run": (["../mlflow.db", RUN], again(1)),
    "the models of a run": ([f"{RUN}/model", f"{RUN}/model_last"], {}),
    "answers": ([f"{RUN}/answers"], {}),
    "prepared data": (["prepared"], {}),
    "the frozen grid": (["grid.json"], {}),
    "the report": (["report.html"], {}),
    "what Snakemake noted": (["../../.snakemake"], {}),
}


def delete(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / "results" / "tiny" / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def count_done(grid: Any) -> int:
    """The runs that `cotdistill status` calls done."""
    return sum(status.state == "done" for status in list_statuses(load("tiny.yaml")))


@pytest.mark.parametrize(("names", "expected"), DELETED.values(), ids=DELETED)
def test_plan_and_status_agree(
    names: list[str], expected: dict[str, int], grid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(grid.root)
    delete(grid.root, names)
    before = {path for path in grid.root.rglob("*") if ".snakemake" not in path.parts}
    assert grid.plan() == expected
    assert count_done(grid) == 4 - expected.get("evaluate", 0)
    assert {path for path in grid.root.rglob("*") if ".snakemake" not in path.parts} == before, "a dry run"


def test_a_target_of_its_own_asks_for_the_run_too(grid: Any) -> None:
    delete(grid.root, [RUN])
    assert grid.plan("figures") == {"train": 1, "evaluate": 1, "collect": 1, "figures": 1}


def test_it_is_made_again_once(grid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(grid.root)
    folder = Path("results/tiny")
    kept = (folder / "runs/demo/mini/mi/gold/1/1/training.json").stat().st_mtime_ns
    table = (folder / "tables/comparison.csv").read_bytes()
    delete(grid.root, [RUN, "../mlflow.db", "grid.json", "report.html"])
    found = grid.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert found.returncode == 0, found.stdout
    assert "nothing to be done" not in found.stdout
    assert count_done(grid) == 4 and grid.plan() == {}
    for name in ("../mlflow.db", "grid.json", "report.html"):
        assert (folder / name).is_file(), name
    assert (folder / "runs/demo/mini/mi/gold/1/1/training.json").stat().st_mtime_ns == kept
    assert (folder / "tables/comparison.csv").read_bytes() == table, "the same numbers"
    (line,) = (folder / "partial.txt").read_text().splitlines()
    assert line.endswith(f"made anew, as these were missing: results/tiny/{RUN}/metrics.json")
    assert len((folder / "store.txt").read_text().splitlines()) == 1


def test_a_deleted_grid_is_written_by_a_call_that_has_nothing_to_do(grid: Any) -> None:
    delete(grid.root, ["grid.json"])
    found = grid.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert found.returncode == 0 and "nothing to be done" in found.stdout, found.stdout
    assert (grid.root / "results/tiny/grid.json").is_file()


# --- without Snakemake


def test_before_the_first_table_nothing_was_deleted(tmp_path: Path) -> None:
    assert find_deleted(tmp_path, ["nowhere"]) == []
    (tmp_path / "tracked.json").touch()
    assert find_deleted(tmp_path, ["nowhere", str(tmp_path / "tracked.json")]) == ["nowhere"]


@pytest.mark.parametrize(
    ("uri", "deleted"),
    [(None, True), ("sqlite:///own.db", True), ("sqlite:///own.db?timeout=9", True),
     ("sqlite:///here.db", False), ("sqlite:///$HERE/here.db", False), ("sqlite:///$HERE/own.db", True),
     ("sqlite:///$NOWHERE/own.db", False), ("http://127.0.0.1:9", False),
     ("postgresql://u@h/db", False)],
)  # fmt: skip
def test_only_a_file_can_be_deleted(
    uri: str | None, deleted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", str(tmp_path))
    values = {"experiment": "e", "datasets": ["demo"], "students": [{"name": "mini", "scratch": {}}],
              "methods": ["dss"], "baseline": "dss"}  # fmt: skip
    experiment = parse({**values, "tracking": {"uri": uri}}, "test.yaml")
    Path("here.db").touch()
    assert not is_store_deleted(experiment), "nothing was tracked yet"
    experiment.folder.mkdir(parents=True)
    (experiment.folder / "tracked.json").touch()
    assert is_store_deleted(experiment) is deleted

"""Stores in folders of any name are found again, and variables in an address are never shown by value."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri, open_uri
from cotdistill.runs.experiment import parse
from cotdistill.tracking.mlflow_store import build_report
from cotdistill.tracking.store import (
    StoreFault,
    connect,
    find_experiment,
    hold_mirrors,
    hold_store,
    read_stored_runs,
)

SECRET = "hunter2"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    monkeypatch.setenv("PLACE", str(tmp_path / "a $5 place"))
    yield tmp_path


def make(uri: str | None, results: str = "results") -> Experiment:
    values = {"experiment": "e", "datasets": ["demo"], "students": [{"name": "s", "scratch": {}}],
              "methods": ["dss"], "results": results, "tracking": {"uri": uri}}  # fmt: skip
    return parse(values, "test")


def open_store(experiment: Experiment) -> str:
    """Make the MLflow experiment in its store; returns the folder of its artifacts."""
    with hold_store(experiment, 0):
        client = connect(open_uri(experiment)[0])
        target = find_experiment(client, experiment)
        assert read_stored_runs(client, target) == {}
        return str(client.get_experiment(target).artifact_location)


@pytest.mark.parametrize("results", ["my results [x] 'q' $$y # b", "100 % %41 &c=d;e {v2} é \"r\""])
def test_the_default_store_is_in_the_folder_of_results(work: Path, results: str) -> None:
    experiment = make(None, results)
    artifacts = open_store(experiment)
    assert open_store(experiment) == artifacts, "found again"
    folder = work / results.replace("$$", "$")
    assert (folder / "mlflow.db").is_file() and [path.name for path in work.iterdir()] == [folder.name]
    assert artifacts == (folder / "mlartifacts" / "e").as_uri()


def test_variables_in_the_address_of_a_file(work: Path) -> None:
    experiment = make("sqlite:///${PLACE}/[x] runs.db")
    (work / "a $5 place").mkdir()
    left = work / "a $5 place" / ".[x] runs.db.abcdefgh"
    left.mkdir()
    open_store(experiment)
    assert (work / "a $5 place" / "[x] runs.db").is_file() and not left.exists()
    assert get_uri(experiment) == "sqlite:///${PLACE}/[x] runs.db" == build_report(experiment, {}, 0)["uri"]


@pytest.mark.parametrize(
    "uri",
    ["mysql+nodriver://u:${DB_PASSWORD}@127.0.0.1:9/d", "postgresql://u:$DB_PASSWORD@127.0.0.1:9/d",
     "http://127.0.0.1:9/${DB_PASSWORD}"],
)  # fmt: skip
def test_a_fault_shows_the_name_of_a_variable_alone(
    work: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    experiment = make(uri)
    with pytest.raises(UserError) as caught:
        open_store(experiment)
    said = "".join(traceback.format_exception(caught.value))
    assert SECRET not in said and "DB_PASSWORD" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert SECRET not in experiment.model_dump_json() + str(build_report(experiment, {}, 0))


def test_a_variable_that_is_not_set(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DB_PASSWORD")
    experiment = make("postgresql://u:${DB_PASSWORD}@127.0.0.1/d")
    for hold in (lambda: hold_store(experiment, 0), lambda: hold_mirrors(experiment)):
        with pytest.raises(UserError, match="variable DB_PASSWORD is not set"), hold():
            pass


def test_a_database_without_its_driver_is_a_fault_of_one_line(work: Path) -> None:
    with pytest.raises(StoreFault, match="MLflow failed: .*; expected a store it can write"):
        open_store(make("mysql+nodriver://127.0.0.1:9/d"))

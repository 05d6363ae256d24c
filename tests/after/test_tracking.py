"""MLflow: what is written, that a repeat adds nothing, and that a cut-short call is completed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow.tracking import MlflowClient

from cotdistill.config.grid import Run, expand
from cotdistill.config.models import Experiment
from cotdistill.errors import UserError
from cotdistill.files import read_json, write_json
from cotdistill.tracking import finished, mlflow_store, store, track

Made = Callable[..., Experiment]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tracking into a local store opens no connection."""

    def refuse(*address: Any) -> None:
        raise AssertionError(f"tracking opened a connection to {address[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs; laying one out takes seconds, copying it does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def small(made: Made, empty_store: Path) -> Experiment:
    """One dataset, two methods, two seeds and an empty store."""
    experiment = made(datasets=["cqa"], methods=["dss", "mi"], seeds=[0, 1], steps=40)
    shutil.copy(empty_store, Path(experiment.results, "mlflow.db"))
    return experiment


def stored(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parents by cell, children by run id) of the store."""
    client = MlflowClient(store.uri_of(experiment))
    found = client.get_experiment_by_name(experiment.experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    parents = {run.data.tags["cotdistill.cell"]: run for run in runs if "cotdistill.cell" in run.data.tags}
    children = {run.data.tags["cotdistill.run"]: run for run in runs if "cotdistill.run" in run.data.tags}
    assert len(runs) == len(parents) + len(children), "a run stands twice"
    return parents, children


def whole(experiment: Experiment) -> None:
    parents, children = stored(experiment)
    assert set(children) == {run.id for run in expand(experiment)} and len(parents) == 2
    for run_id, child in children.items():
        assert child.data.tags["mlflow.parentRunId"] == parents[run_id.rsplit("/", 1)[0]].info.run_id
        assert child.info.status == "FINISHED" and child.data.tags["cotdistill.digest"]


def test_what_is_written(small: Experiment) -> None:
    report = track(small)
    assert {key: report[key] for key in ("added", "updated", "unchanged", "missing")} == {
        "added": 4,
        "updated": 0,
        "unchanged": 0,
        "missing": 0,
    }
    whole(small)
    parents, children = stored(small)
    run = expand(small)[0]
    child = children[run.id]
    strict = read_json(run.folder / "metrics.json")["strict"]
    assert child.data.metrics["test/accuracy"] == strict["test_accuracy"]
    assert child.data.params["method_settings.alpha"] == "0.5"
    assert child.data.tags["role"] == "baseline" and child.data.tags["config_hash"] == run.hash
    assert child.info.end_time - child.info.start_time == 60_000
    client = MlflowClient(store.uri_of(small))
    series = client.get_metric_history(child.info.run_id, "loss/rationale")
    assert [point.step for point in series] == [10, 20, 30, 40]
    artifacts = {artifact.path for artifact in client.list_artifacts(child.info.run_id)}
    assert artifacts == set(finished.ARTIFACTS)
    assert Path(small.results, "mlartifacts", "made-up").is_dir()
    parent = parents["cqa/tiny/mi/gold/1"]
    assert parent.data.metrics["test/accuracy_n"] == 2 and parent.data.tags["role"] == "proposed"


def test_twice_adds_nothing(small: Experiment) -> None:
    track(small)
    before = {run.info.run_id for group in stored(small) for run in group.values()}
    report = track(small)
    assert (report["added"], report["updated"], report["unchanged"]) == (0, 0, 4)
    assert before == {run.info.run_id for group in stored(small) for run in group.values()}


@pytest.mark.parametrize("call", ["log_batch", "log_artifact", "set_terminated", "set_tag"])
def test_a_cut_short_call_is_completed(small: Experiment, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real, calls = getattr(MlflowClient, call), []

    def stop(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(call)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, call, stop)
        track(small)
    track(small)
    whole(small)
    assert track(small)["unchanged"] == 4


def test_changed_content_replaces_the_run(small: Experiment) -> None:
    track(small)
    run = expand(small)[0]
    metrics = read_json(run.folder / "metrics.json")
    metrics["strict"].update(test_accuracy=0.25, test_correct=50)
    write_json(run.folder / "metrics.json", metrics)
    report = track(small)
    assert (report["added"], report["updated"], report["unchanged"]) == (0, 1, 3)
    whole(small)
    parents, children = stored(small)
    assert children[run.id].data.metrics["test/accuracy"] == 0.25
    values = [c.data.metrics["test/accuracy"] for key, c in children.items() if "/dss/" in key]
    assert parents["cqa/tiny/dss/gold/1"].data.metrics["test/accuracy_mean"] == pytest.approx(sum(values) / 2)


def test_what_is_replaced_while_it_is_read_is_written_again(
    small: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = expand(small)[0], finished.result_row

    def evaluated_anew(run: Run) -> dict[str, Any]:
        row = real(run)
        predictions = run.folder / "predictions.jsonl"
        predictions.write_text(predictions.read_text() * 2)
        return row

    with monkeypatch.context() as patch:
        patch.setattr(finished, "result_row", evaluated_anew)
        before = finished.read(run)
    assert before is not None and before != finished.read(run), "the digest is of files that were not read"


def test_another_trackers_writing_is_not_undone(small: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    last, aside = expand(small)[3], Path(small.results, "aside")
    last.folder.rename(aside)

    @contextlib.contextmanager
    def waits_for_another(*arguments: Any) -> Iterator[None]:
        monkeypatch.undo()
        aside.rename(last.folder)  # finished while we wait, and written by who holds the store
        track(small)
        with store.writing(*arguments):
            yield

    monkeypatch.setattr(mlflow_store, "writing", waits_for_another)
    assert track(small)["unchanged"] == 4
    whole(small)


def test_missing_runs_come_later(small: Experiment) -> None:
    run = expand(small)[3]
    aside = Path(small.results, "aside")
    run.folder.rename(aside)
    report = track(small)
    assert (report["added"], report["missing"]) == (3, 1)
    aside.rename(run.folder)
    assert track(small)["added"] == 1
    whole(small)


def test_a_second_writer_waits_and_then_says_so(small: Experiment) -> None:
    with FileLock(Path(small.results, "mlflow.db.lock")), pytest.raises(UserError, match="another process"):
        track(small, timeout=0.1)


def test_a_store_that_is_none_is_one_line(small: Experiment) -> None:
    Path(small.results, "mlflow.db").write_text("not a database " * 1000)
    with pytest.raises(UserError, match="MLflow failed") as error:
        track(small)
    assert "\n" not in str(error.value)


def test_a_new_store_is_laid_out_quietly(
    made: Made, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work folder"
    work.mkdir()
    monkeypatch.chdir(work)
    experiment = made(datasets=["cqa"], methods=["dss"], seeds=[0], steps=20)
    uri = f"sqlite:///{work / 'own.db'}"
    experiment = experiment.model_copy(
        update={"tracking": experiment.tracking.model_copy(update={"uri": uri})}
    )
    assert track(experiment)["added"] == 1
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert sorted(os.listdir(work)) == ["own.db", "own.db.lock"], "MLflow wrote into the work folder"

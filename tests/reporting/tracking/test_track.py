"""MLflow: what is written, that a repeat adds nothing, and that a cut-short call is completed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow.tracking import MlflowClient

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json
from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.collect import collect
from cotdistill.tracking import finished, mlflow_store, notes, store
from cotdistill.tracking import track as track_tables
from tests.reporting.tracking.reading import stored, track, whole

Made = Callable[..., Experiment]
Change = Callable[[Run, Path, str, Any], None]

pytestmark = pytest.mark.usefixtures("no_network")


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
    client = MlflowClient(get_uri(small))
    series = client.get_metric_history(child.info.run_id, "loss/rationale")
    assert [point.step for point in series] == [10, 20, 30, 40]
    artifacts = {artifact.path for artifact in client.list_artifacts(child.info.run_id)}
    assert artifacts == {*(path.name for path in finished.list_artifacts(run.files)), notes.SAMPLE}
    assert len(artifacts) == 5
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


def test_changed_content_replaces_the_run(small: Experiment, change: Change) -> None:
    track(small)
    run = expand(small)[0]
    change(run, run.files.metrics, "strict.test_accuracy", 0.25)
    change(run, run.files.metrics, "strict.test_correct", 50)
    report = track(small)
    assert (report["added"], report["updated"], report["unchanged"]) == (0, 1, 3)
    whole(small)
    parents, children = stored(small)
    assert children[run.id].data.metrics["test/accuracy"] == 0.25
    values = [c.data.metrics["test/accuracy"] for key, c in children.items() if "/dss/" in key]
    assert parents["cqa/tiny/dss/gold/1"].data.metrics["test/accuracy_mean"] == pytest.approx(sum(values) / 2)


def test_what_is_replaced_while_it_is_read_is_written_again(
    small: Experiment, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    run, real = expand(small)[0], finished.build_history_rows

    def evaluated_anew(run: Run) -> list[dict[str, Any]]:
        change(run, run.files.metrics, "evaluation_wall_s", 9.0)
        return real(run)

    before = finished.read_finished(run, {})
    with monkeypatch.context() as patch:
        patch.setattr(finished, "build_history_rows", evaluated_anew)
        during = finished.read_finished(run, {})
    after = finished.read_finished(run, {})
    assert before and during and after
    assert before.digest == during.digest != after.digest, "the digest is of files that were not read"
    with pytest.raises(UserError, match="changed since it was collected"):
        during.check()


def test_a_run_that_changed_since_it_was_collected_is_refused(small: Experiment, change: Change) -> None:
    run = expand(small)[0]
    collect(small)
    change(run, run.files.metrics, "evaluation_wall_s", 9.0)
    with pytest.raises(UserError, match="metrics.json: changed since it was collected; collect again"):
        track_tables(small)
    run.files.metrics.unlink()
    with pytest.raises(UserError, match="metrics.json: no such file, though it was collected"):
        track_tables(small)
    assert stored(small) == ({}, {}), "a fault is found before anything is written"


def test_only_the_tables_are_read(small: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="results.parquet: no such table; run the collect stage first"):
        track_tables(small)
    track(small)
    for run in expand(small):
        run.folder.rename(run.folder.with_name(f"{run.seed}.aside"))
    assert track_tables(small)["unchanged"] == 4


def test_another_trackers_writing_is_not_undone(small: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    last, aside = expand(small)[3], Path(small.results, "aside")
    last.folder.rename(aside)

    @contextlib.contextmanager
    def waits_for_another(*arguments: Any) -> Iterator[None]:
        monkeypatch.undo()
        aside.rename(last.folder)  # finished while we wait, and written by who holds the store
        track(small)
        with store.hold_store(*arguments):
            yield

    monkeypatch.setattr(mlflow_store, "hold_store", waits_for_another)
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


# --- runs whose folder is gone


# --- what a method is


# --- when a run in training began

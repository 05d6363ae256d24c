"""MLflow: what is written, that a repeat adds nothing, and that a cut-short call is completed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock
from mlflow.tracking import MlflowClient

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json, read_jsonl, write_jsonl
from cotdistill.config.models import Experiment
from cotdistill.methods import METHODS, dss
from cotdistill.runs.documents import read_answers, write_answers
from cotdistill.runs.grid import Run, expand
from cotdistill.runs.lease import Lease
from cotdistill.tables.collect import collect
from cotdistill.tracking import finished, live, mlflow_store, notes, store
from cotdistill.tracking import track as track_tables
from cotdistill.tracking.store import GONE

Made = Callable[..., Experiment]
Change = Callable[[Run, Path, str, Any], None]


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


def track(experiment: Experiment, **options: Any) -> dict[str, Any]:
    """Collect what is finished, and track it."""
    collect(experiment, allow_missing=True)
    return track_tables(experiment, **options)


def stored(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parents by cell, children by run id) of the store."""
    client = MlflowClient(store.get_uri(experiment))
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
    client = MlflowClient(store.get_uri(small))
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


# --- what stands beside the accuracy: measures, inputs, descriptions, figures


@pytest.fixture
def measured(change: Change) -> Callable[..., None]:
    """Replace the measures of the run's metrics."""

    def write(run: Run, **values: Any) -> None:
        change(run, run.files.metrics, "measures", values)

    return write


def description(stored_run: Any) -> str:
    return str(stored_run.data.tags["mlflow.note.content"])


def test_measures_are_final_metrics_and_the_parent_has_their_means(
    small: Experiment, measured: Callable[..., None], seal: Callable[[Run], None]
) -> None:
    first, second = expand(small)[:2]
    for run, value in ((first, 0.1), (second, 0.3)):
        series = [{"step": 10, "mi/pooled/infonce": 0.7}, {"step": 40, "mi/pooled/infonce": 0.9}]
        write_jsonl(run.folder / "history.jsonl", [*read_jsonl(run.folder / "history.jsonl"), *series])
        seal(run)
        bound = {"value": 1 + value, "low": 0.5, "n": 50, "ceiling": 3.9}
        measured(
            run,
            calibration={"sequence": {"ece_width": value, "bins": [1, 2]}},
            mi={"pooled": {"infonce": bound}},
        )
    measured(expand(small)[2], loss={"total": 7.0})  # the name of a series
    track(small)
    parents, children = stored(small)
    metrics = children[first.id].data.metrics
    assert metrics["calibration/sequence/ece_width"] == 0.1 and metrics["mi/pooled/infonce/ceiling"] == 3.9
    assert metrics["mi/pooled/infonce"] == 0.9 and metrics["mi/pooled/infonce/value"] == 1.1
    client = MlflowClient(store.get_uri(small))
    history = client.get_metric_history(children[first.id].info.run_id, "mi/pooled/infonce")
    assert [point.value for point in history] == [0.7, 0.9]
    means = parents["cqa/tiny/dss/gold/1"].data.metrics
    assert means["calibration/sequence/ece_width_mean"] == pytest.approx(0.2)
    assert means["mi/pooled/infonce/value_n"] == 2 and "mi/pooled/infonce/ceiling_mean" not in means
    low, high = means["mi/pooled/infonce/value_low"], means["mi/pooled/infonce/value_high"]
    assert low < means["mi/pooled/infonce/value_mean"] < high
    collides = children[expand(small)[2].id].data.metrics
    assert collides["loss/total/final"] == 7.0 and collides["loss/total"] != 7.0


def test_a_changed_measure_updates_run_and_parent_in_place_of_the_old(
    small: Experiment, measured: Callable[..., None]
) -> None:
    run = expand(small)[0]
    measured(run, rationale={"made": {"bleu": 10.0}})
    track(small)
    measured(run, rationale={"made": {"bleu": 20.0}})
    report = track(small)
    assert (report["added"], report["updated"], report["unchanged"]) == (0, 1, 3)
    whole(small)
    parents, children = stored(small)
    assert children[run.id].data.metrics["rationale/made/bleu"] == 20
    assert parents["cqa/tiny/dss/gold/1"].data.metrics["rationale/made/bleu_mean"] == 20
    assert "rationale/made/bleu | 20 |" in description(children[run.id])


def test_datasets_are_inputs_with_the_digest_of_the_data(small: Experiment) -> None:
    track(small)
    _, children = stored(small)
    inputs = children[expand(small)[0].id].inputs.dataset_inputs
    assert {(i.dataset.name, i.dataset.digest) for i in inputs} == {
        (f"cqa-{split}", "sum-of-cqa") for split in ("train", "valid", "test")
    }
    tags = {i.dataset.name: {tag.key: tag.value for tag in i.tags} for i in inputs}
    train = {"mlflow.data.context": "training", "fraction": "1", "labels": "gold"}
    assert tags["cqa-train"] == train and tags["cqa-test"] == {"mlflow.data.context": "test"}
    assert str(expand(small)[0].prepared.absolute()) in inputs[0].dataset.source


def test_descriptions_and_samples_are_there_to_read(
    small: Experiment, tmp_path: Path, seal: Callable[[Run], None]
) -> None:
    run = expand(small)[0]
    first = replace(read_answers(run.files.predictions)[0], input="x|y", correct=True)
    first = replace(first, options=["a", "b"], option_probabilities=[0.5, 0.5])
    write_answers(run.files.predictions, [replace(first, id=str(k)) for k in range(30)])
    rows = read_jsonl(run.files.predictions)
    seal(run)
    track(small)
    parents, children = stored(small)
    parent, child = parents["cqa/tiny/dss/gold/1"], children[run.id]
    text = description(child)
    strict = read_json(run.folder / "metrics.json")["strict"]
    assert "**dss** on **cqa**" in text and "the baseline" in text and "seed 0" in text
    assert f"{strict['test_correct']} of {strict['test_n']}" in text
    assert f"/runs/{parent.info.run_id}/artifacts" in text and str(run.folder.absolute()) in text
    assert "| test/accuracy |" in description(parent) and "No figures" in description(parent)
    client = MlflowClient(store.get_uri(small))
    table = read_json(Path(client.download_artifacts(child.info.run_id, notes.SAMPLE, str(tmp_path))))
    assert table["columns"] == list(rows[0]) and len(table["data"]) == notes.SAMPLE_ROWS
    shown = dict(zip(table["columns"], table["data"][3], strict=True))
    names = ("id", "input", "options", "correct")
    assert [shown[name] for name in names] == ["3", "x|y", '["a", "b"]', True]


def test_figures_drawn_later_reach_the_parent_and_rewrite_no_run(small: Experiment) -> None:
    track(small)
    before = {run.info.run_id for group in stored(small) for run in group.values()}
    figures = Path(small.results, small.experiment, "figures")
    figures.mkdir()
    client = MlflowClient(store.get_uri(small))
    for content in (b"first", b"second"):
        (figures / "accuracy.png").write_bytes(content)
        assert track(small)["unchanged"] == 4
        parents, children = stored(small)
        assert before == {run.info.run_id for group in (parents, children) for run in group.values()}
        for parent in parents.values():
            file = client.download_artifacts(parent.info.run_id, "figures/accuracy.png")
            assert Path(file).read_bytes() == content
            assert "`figures/accuracy.png`" in description(parent)


def test_a_description_that_a_person_wrote_stays(small: Experiment) -> None:
    track(small)
    parents, children = stored(small)
    client = MlflowClient(store.get_uri(small))
    run = expand(small)[0]
    client.set_tag(children[run.id].info.run_id, "mlflow.note.content", "mine")
    aside = run.folder.with_name("aside")
    for source, target in ((run.folder, aside), (aside, run.folder)):
        source.rename(target)
        track(small)
        assert description(stored(small)[1][run.id]) == "mine"


# --- runs whose folder is gone


def marks(experiment: Experiment) -> set[str]:
    return {name for group in stored(experiment) for name, run in group.items() if GONE in run.data.tags}


def test_a_run_whose_folder_is_gone_is_marked_until_it_comes_back(small: Experiment) -> None:
    track(small)
    before = {name: run.info.run_id for name, run in stored(small)[1].items()}
    run = expand(small)[3]
    cell = finished.get_cell(run.id)
    aside = Path(small.results, "aside")
    run.folder.rename(aside)
    report = track(small)
    assert (report["gone"], report["missing"], report["unchanged"]) == (1, 1, 3)
    assert marks(small) == {run.id}
    parents, children = stored(small)
    whole(small)  # it still stands below its cell, whose means leave it out
    assert parents[cell].data.metrics["test/accuracy_n"] == 1
    assert description(children[run.id]).startswith("**Gone**")
    day = children[run.id].data.tags[GONE]
    assert track(small)["gone"] == 1 and stored(small)[1][run.id].data.tags[GONE] == day
    aside.rename(run.folder)
    assert track(small)["gone"] == 0 and marks(small) == set()
    parents, children = stored(small)
    assert {name: found.info.run_id for name, found in children.items()} == before
    assert not description(children[run.id]).startswith("**Gone**")
    assert parents[cell].data.metrics["test/accuracy_n"] == 2


def test_a_cell_is_gone_with_all_its_runs_and_leaving_the_grid_is_not_gone(small: Experiment) -> None:
    track(small)
    less = small.model_copy(update={"methods": small.methods[:1]})
    assert track(less)["gone"] == 0 and marks(small) == set()
    lost = expand(small)[2:]
    for run in lost:
        shutil.rmtree(run.folder)
    for experiment in (less, small):
        assert track(experiment)["gone"] == 2
        assert marks(small) == {*(run.id for run in lost), finished.get_cell(lost[0].id)}


def test_moved_results_are_found_again(small: Experiment, tmp_path: Path) -> None:
    uri = store.get_uri(small)
    track(small)
    moved = small.model_copy(update={"tracking": small.tracking.model_copy(update={"uri": uri})})
    moved = moved.model_copy(update={"results": str(tmp_path / "moved")})
    (tmp_path / "moved").mkdir()
    Path(small.results, small.experiment).rename(tmp_path / "moved" / small.experiment)
    report = track(moved)
    assert (report["unchanged"], report["gone"]) == (4, 0)
    assert all(str(tmp_path / "moved") in description(run) for run in stored(small)[1].values())


def test_tags_are_read_alike_through_mlflow_and_from_the_file(
    small: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    track(small)
    client = MlflowClient(store.get_uri(small))
    target = store.find_experiment(client, small)
    client.delete_run(stored(small)[1][expand(small)[0].id].info.run_id)
    direct = store.read_stored_runs(client, target)
    monkeypatch.setattr(store, "_find_database", lambda uri: None)
    assert store.read_stored_runs(client, target) == direct and len(direct) == 5


# --- what a method is


def test_a_method_of_ones_own_has_one_role_everywhere(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(dss.DSS):
        """A user's method, which reuses a reference."""

    real = METHODS.module

    def module(name: str) -> ModuleType:
        if name != "mine":
            return real(name)
        found = ModuleType("mine")
        found.METHOD = Mine  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(METHODS, "module", module)
    monkeypatch.setattr(METHODS, "names", lambda: ["dss", "finetune", "mi", "mine", "single_task"])
    off = {"name": "off", "method": "mi", "beta": 0.0}
    grid: dict[str, Any] = {"datasets": ["cqa"], "methods": ["dss", "mine", "finetune", "mi", off]}
    experiment = made(**grid, seeds=[0, 1], steps=40)
    collect(experiment)
    evidence = AnalysedTables(experiment).evidence.set_index("method")["proposed"]
    items = finished.select_finished(experiment)
    expected = {
        "dss": "baseline", "mine": "proposed", "finetune": "other", "mi": "proposed", "off": "other",
    }  # fmt: skip
    assert {item.run.method.name: item.tags["role"] for item in items} == expected
    assert {name: "proposed" if found else "other" for name, found in evidence.items()} == {
        name: role for name, role in expected.items() if role != "baseline"
    }
    assert {run.method.name: live.build_run_tags(run)["role"] for run in expand(experiment)} == expected


# --- when a run in training began


def test_a_run_in_training_began_when_its_process_took_it_or_training_says(small: Experiment) -> None:
    run = expand(small)[0]
    before = time.time() * 1000
    # written at the end of a training before, and no word on this one
    os.utime(run.files.config, (1, 1))
    assert live.find_start(run) >= int(before)
    run.state.mkdir(parents=True)
    (run.state / "started.json").write_text(json.dumps({"started_at": "2026-01-02T03:04:05+00:00"}))
    assert live.find_start(run) == 1_767_323_045_000
    with Lease(run.files.states) as lease:
        assert live.find_start(run) == int(lease.about["since"] * 1000)
    assert live.find_start(run) == 1_767_323_045_000
    (run.state / "started.json").write_text('{"started_at": "yester')
    assert live.find_start(run) >= int(before)

"""What MLflow shows of a run beside its accuracy, runs that are gone, and the roles of methods."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.common.files import read_json, read_jsonl, write_jsonl
from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri
from cotdistill.methods import METHODS, dss
from cotdistill.runs.documents import read_answers, write_answers
from cotdistill.runs.grid import Run, expand
from cotdistill.runs.lease import Lease
from cotdistill.tables.collect import collect
from cotdistill.tracking import finished, live, notes, store
from cotdistill.tracking.store import GONE
from tests.reporting.tracking.reading import stored, track, whole

Made = Callable[..., Experiment]
Change = Callable[[Run, Path, str, Any], None]

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def measured(change: Change) -> Callable[..., None]:
    """Replace the measures of the run's metrics."""

    def write(run: Run, **values: Any) -> None:
        change(run, run.files.metrics, "measures", values)

    return write


SERIES = "valid/predictability/pooled/share"


def description(stored_run: Any) -> str:
    return str(stored_run.data.tags["mlflow.note.content"])


def test_measures_are_final_metrics_and_the_parent_has_their_means(
    small: Experiment, measured: Callable[..., None], seal: Callable[[Run], None]
) -> None:
    first, second = expand(small)[:2]
    for run, value in ((first, 0.1), (second, 0.3)):
        series = [{"step": 10, SERIES: 0.7}, {"step": 40, SERIES: 0.9}]
        write_jsonl(run.folder / "history.jsonl", [*read_jsonl(run.folder / "history.jsonl"), *series])
        seal(run)
        about = {"n": 256, "pooled": {"share": 0.4 + value, "excess": value}}
        measured(
            run,
            calibration={"sequence": {"ece_width": value, "bins": [1, 2]}},
            predictability=about,
        )
    measured(expand(small)[2], loss={"total": 7.0})  # the name of a series
    track(small)
    parents, children = stored(small)
    metrics = children[first.id].data.metrics
    assert metrics["calibration/sequence/ece_width"] == 0.1 and metrics["predictability/n"] == 256
    assert metrics[SERIES] == 0.9 and metrics["predictability/pooled/share"] == 0.5
    client = MlflowClient(get_uri(small))
    history = client.get_metric_history(children[first.id].info.run_id, SERIES)
    assert [point.value for point in history] == [0.7, 0.9]
    means = parents["cqa/tiny/dss/gold/1"].data.metrics
    assert means["calibration/sequence/ece_width_mean"] == pytest.approx(0.2)
    assert means["predictability/pooled/excess_n"] == 2 and "predictability/n_mean" not in means
    assert means["predictability/pooled/excess_mean"] == pytest.approx(0.2)
    assert not [name for name in means if name.endswith(("_low", "_high"))], "two seeds have no interval"
    assert "too few seeds" in description(parents["cqa/tiny/dss/gold/1"])
    collides = children[expand(small)[2].id].data.metrics
    assert collides["loss/total/final"] == 7.0 and collides["loss/total"] != 7.0


def test_both_accuracies_of_option_scoring_are_there(
    small: Experiment, measured: Callable[..., None]
) -> None:
    for run in expand(small):
        accuracies = {"sum": {"accuracy": 0.5}, "mean": {"accuracy": 0.25}}
        measured(run, options={**accuracies, "gold": {"shortest": None}})
    track(small)
    parents, children = stored(small)
    metrics = children[expand(small)[0].id].data.metrics
    assert (metrics["options/sum/accuracy"], metrics["options/mean/accuracy"]) == (0.5, 0.25)
    means = parents["cqa/tiny/dss/gold/1"].data.metrics
    assert (means["options/sum/accuracy_mean"], means["options/mean/accuracy_mean"]) == (0.5, 0.25)
    assert "options/gold/shortest" not in metrics


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
    assert tags["cqa-train"] == train
    assert tags["cqa-test"] == {"mlflow.data.context": "test", "examples": "200", "groups": "200"}
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
    client = MlflowClient(get_uri(small))
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
    client = MlflowClient(get_uri(small))
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
    client = MlflowClient(get_uri(small))
    run = expand(small)[0]
    client.set_tag(children[run.id].info.run_id, "mlflow.note.content", "mine")
    aside = run.folder.with_name("aside")
    for source, target in ((run.folder, aside), (aside, run.folder)):
        source.rename(target)
        track(small)
        assert description(stored(small)[1][run.id]) == "mine"


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
    uri = get_uri(small)
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
    client = MlflowClient(get_uri(small))
    target = store.find_experiment(client, small)
    client.delete_run(stored(small)[1][expand(small)[0].id].info.run_id)
    direct = store.read_stored_runs(client, target)
    monkeypatch.setattr(store, "find_database", lambda uri: None)
    assert store.read_stored_runs(client, target) == direct and len(direct) == 5


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

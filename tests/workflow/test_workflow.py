"""What the rules are told of a grid: paths, resources, and where the data comes from."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cotdistill.common.errors import UserError
from cotdistill.common.fingerprint import closure
from cotdistill.data import release
from cotdistill.orchestration.planning import by_job, make_wildcards
from cotdistill.orchestration.workflow import Workflow
from cotdistill.runs import answers
from cotdistill.runs.code import compute_code

STUDENT = {"name": "mini", "scratch": {}, "compute": {"threads": 3, "mem_mb": 1000, "runtime": 30}}


def workflow(**changes: Any) -> Workflow:
    values = {"experiment": "e", "datasets": ["demo"], "students": [STUDENT], "methods": ["dss", "mi"],
              "seeds": [0, 1], **changes}  # fmt: skip
    return Workflow(values, "test.yaml")


def wildcards(**changes: str) -> SimpleNamespace:
    values = {"dataset": "demo", "student": "mini", "rest": "mi/gold/1/0"}
    return SimpleNamespace(**{**values, **changes})


def test_memory_and_time_grow_with_the_attempt() -> None:
    grid = workflow()
    assert [grid.count_mem_mb(wildcards(), attempt) for attempt in (1, 2, 3)] == [1300, 2300, 3300]
    assert [grid.count_minutes(wildcards(), attempt) for attempt in (1, 2, 3)] == [30, 60, 90]


@pytest.mark.parametrize(
    ("train", "evaluate"), [(8, [8, 16, 24]), (30, [15, 30, 45]), (400, [100, 200, 300])]
)
def test_evaluation_that_answers_anew_asks_for_less_time(train: int, evaluate: list[int]) -> None:
    grid = workflow(students=[{**STUDENT, "compute": {"runtime": train}}])
    grid.unanswered = frozenset(grid.runs)
    assert [grid.count_minutes_to_evaluate(wildcards(), attempt) for attempt in (1, 2, 3)] == evaluate


def test_evaluation_of_stored_answers_asks_for_little() -> None:
    large = {**STUDENT, "compute": {"threads": 3, "mem_mb": 90_000}}
    grid = workflow(training={"device": "cuda", "gpus": 2}, students=[large])
    asked = (grid.count_threads_to_evaluate, grid.count_gpus_to_evaluate, grid.count_mem_mb_to_evaluate,
             grid.count_minutes_to_evaluate)  # fmt: skip
    assert [grid.request(resource) for resource in asked] == [1, 0, 1300, 30], "numbers, for all jobs"


def test_evaluation_without_stored_answers_asks_for_what_answering_needs() -> None:
    grid = workflow(training={"device": "cuda", "gpus": 2})
    grid.unanswered = frozenset({"demo/mini/dss/gold/1/1"})
    threads, gpus, memory = map(grid.request, (
        grid.count_threads_to_evaluate, grid.count_gpus_to_evaluate, grid.count_mem_mb_to_evaluate,
    ))  # fmt: skip
    other = wildcards(rest="dss/gold/1/1")
    assert [threads(wildcards()), threads(other)] == [1, 3]
    assert [gpus(wildcards()), gpus(other)] == [0, 1]
    assert [memory(wildcards(), attempt=2), memory(other, attempt=2)] == [1300, 2300]


def test_only_trained_runs_of_this_config_are_unanswered(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, stale, other, absent = workflow().runs.values()
    for run, digest in ((current, current.hash), (stale, stale.hash), (other, "of before")):
        run.folder.mkdir(parents=True)
        run.files.training.write_text(json.dumps({"hash": digest}))
    monkeypatch.setattr(answers, "is_key_current", lambda run, checkpoint: run.id == current.id)
    assert workflow().unanswered == {stale.id}
    assert not absent.folder.exists()


@pytest.mark.parametrize(
    ("device", "processes", "gpus"),
    [("cuda", 1, 1), ("cuda", 2, 2), ("cpu", 1, 0), ("cpu", 2, 0), ("auto", 1, 0)],
)
def test_gpus_and_threads_of_a_job(device: str, processes: int, gpus: int) -> None:
    grid = workflow(training={"device": device, "gpus": processes})
    assert grid.count_gpus(wildcards()) == gpus and grid.count_threads(wildcards()) == 3 * processes
    grid.unanswered = frozenset(grid.runs)
    assert grid.count_gpus_to_evaluate(wildcards()) == min(gpus, 1)
    assert grid.count_threads_to_evaluate(wildcards()) == 3


def test_wildcards_name_the_run_and_no_setting() -> None:
    assert str(workflow().files.folder) == "results/e/runs/{dataset}/{student}/{rest}"
    changed = workflow(training={"steps": 7}, methods=["dss", {"name": "mi", "beta": 3}])
    assert list(changed.runs) == list(workflow().runs)
    log = changed.name_log("train", *changed.wildcards)
    benchmark = changed.name_benchmark("prepare", "dataset")
    for path in (str(changed.files.metrics), changed.prepared, log, benchmark):
        assert {part.split("}")[0] for part in path.split("{")[1:]} <= {"dataset", "student", "rest"}
    assert changed.hash_run(wildcards()) != workflow().hash_run(wildcards())


def test_every_run_is_found_by_its_wildcards() -> None:
    grid = workflow(fractions=[0.5, 1.0], labels=["gold", "teacher"])
    for run in grid.runs.values():
        job = make_wildcards(run)
        assert grid.find_run(job) is run
        assert Path(str(grid.files.folder).format(**vars(job))) == run.folder
    found = grid.list_run_files(grid.files.metrics, grid.files.predictions)
    assert found == [str(path) for run in grid.runs.values()
                     for path in (run.files.metrics, run.files.predictions)]  # fmt: skip


MIXED: dict[str, Any] = {
    "datasets": ["demo", {"name": "more", "adapter": "demo", "training": {"steps": 7}}],
    "students": [STUDENT, {"name": "wide", "scratch": {"d_model": 32}, "training": {"batch_size": 2}}],
    "methods": ["dss", {"name": "strong", "method": "mi", "beta": 2}, {"name": "weak", "method": "mi"}],
    "labels": ["gold", "teacher"], "fractions": [0.25, 1.0],
}  # fmt: skip


def test_a_job_expects_the_hash_of_its_run() -> None:
    grid = workflow(**MIXED)
    assert len(grid.runs) == 96
    for run in grid.runs.values():
        job = make_wildcards(run)
        assert grid.hash_run(job) == run.hash
        assert grid.fingerprint_training(job) == compute_code("train", run)
        assert grid.fingerprint_evaluation(job) == compute_code("evaluate", run)
        assert grid.fingerprint_training(job) != grid.fingerprint_evaluation(job)


def test_code_of_a_job_is_that_of_its_method() -> None:
    grid = workflow(**MIXED)
    codes: dict[str, set[str]] = {}
    for run in grid.runs.values():
        codes.setdefault(run.method.name, set()).add(grid.fingerprint_training(make_wildcards(run)))
    assert all(len(found) == 1 for found in codes.values())
    assert codes["strong"] == codes["weak"] != codes["dss"]


def test_what_all_runs_ask_for_is_a_number() -> None:
    grid = workflow(training={"device": "cuda", "gpus": 2})
    assert [grid.request(resource) for resource in (grid.count_threads, grid.count_gpus)] == [6, 2]
    # retries ask for more, so these stay functions
    memory, minutes = grid.request(grid.count_mem_mb), grid.request(grid.count_minutes)
    assert [memory(wildcards(), attempt=attempt) for attempt in (1, 2)] == [1300, 2300]
    assert minutes(wildcards(), attempt=2) == 60


def test_what_runs_ask_for_in_different_ways_is_a_function() -> None:
    other = {"name": "wide", "scratch": {}, "compute": {"threads": 8}, "training": {"gpus": 2}}
    grid = workflow(students=[STUDENT, other], training={"device": "cuda"})
    threads, gpu = grid.request(grid.count_threads), grid.request(grid.count_gpus)
    for run in grid.runs.values():
        wide = run.student.name == "wide"
        assert (threads(make_wildcards(run)), gpu(make_wildcards(run))) == ((16, 2) if wide else (3, 1))


def test_snakemake_is_told_the_arguments_of_each_function() -> None:
    grid = workflow(students=[STUDENT, {"name": "wide", "scratch": {}, "compute": {"threads": 8}}])
    twice = ["wildcards", "attempt"]
    names = {"mem_mb": twice, "minutes": twice, "threads": ["wildcards"]}
    for name, expected in names.items():
        request = grid.request(getattr(grid, f"count_{name}"))
        assert list(inspect.signature(request).parameters) == expected
    assert list(inspect.signature(by_job(grid.hash_run)).parameters) == ["wildcards"]


def test_bad_grid_is_refused_before_the_first_job() -> None:
    with pytest.raises(UserError, match=r"^test.yaml: 'methods\[0\]': unknown method 'ds'; did you"):
        workflow(methods=["ds"])


def test_freezing_twice_leaves_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = workflow()
    grid.freeze()
    first = Path(grid.grid).stat()
    grid.freeze()
    assert Path(grid.grid).stat().st_mtime_ns == first.st_mtime_ns
    workflow(seeds=[5]).freeze()
    assert '"seeds": [\n  5\n ]' in Path(grid.grid).read_text()


# --- the published data


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(release.ENVIRONMENT, raising=False)
    return tmp_path


def test_data_is_fetched_where_the_grid_needs_it(work: Path) -> None:
    assert workflow(datasets=["cqa"]).fetched == ["data/.release.json"]
    assert workflow(datasets=["demo"]).fetched == []


def test_named_data_is_not_fetched(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workflow(datasets=["cqa"], data_root="mine").fetched == []
    assert workflow(datasets=[{"name": "cqa", "path": "mine"}]).fetched == []
    monkeypatch.setenv(release.ENVIRONMENT, "mine")
    assert workflow(datasets=["cqa"]).fetched == []


def test_data_put_there_by_hand_is_not_fetched(work: Path) -> None:
    (work / "data" / "cqa").mkdir(parents=True)
    assert workflow(datasets=["cqa"]).fetched == []
    assert workflow(datasets=["cqa", "svamp"]).fetched == ["data/.release.json"]


def test_broken_download_is_fetched_again(work: Path) -> None:
    (work / "data").mkdir()
    (work / "data" / "datasets.zip.part").write_text("PK")
    assert workflow(datasets=["cqa"]).fetched == ["data/.release.json"]


def test_fetched_data_stays_an_input(work: Path) -> None:
    (work / "data" / "cqa").mkdir(parents=True)
    (work / "data" / release.MARKER).write_text("{}")
    assert workflow(datasets=["cqa"]).fetched == ["data/.release.json"]


def test_own_files_are_inputs(work: Path) -> None:
    (work / "own").mkdir()
    grid = workflow(datasets=["demo", {"name": "own", "adapter": "custom", "path": "own"}])
    assert grid.list_data_files(wildcards(dataset="own")) == []
    for name in ("train.jsonl", "test.jsonl"):
        (work / "own" / name).write_text("{}")
    assert grid.list_data_files(wildcards(dataset="own")) == ["own/test.jsonl", "own/train.jsonl"]
    assert grid.list_data_files(wildcards(dataset="demo")) == []


T5_FILES = ("config.json", "model.safetensors", "spiece.model", "tokenizer.json")


def test_files_of_a_student_in_a_folder_are_inputs(work: Path) -> None:
    hub, local = "google/t5-v1_1-small", "models/t5"
    grid = workflow(students=[STUDENT, hub, {"name": "local", "pretrained": local}])
    for name in ("mini", "t5-v1_1-small", "local"):
        assert grid.list_student_files(wildcards(student=name)) == []
    for name in (*T5_FILES, "tf_model.h5", "README.md"):
        Path(local).mkdir(parents=True, exist_ok=True)
        Path(local, name).write_text("{}")
    assert grid.list_student_files(wildcards(student="local")) == [f"{local}/{name}" for name in T5_FILES]
    assert grid.list_student_files(wildcards(student="mini")) == []


def test_another_folder_of_the_published_data_prepares_again(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def root(dataset: str = "cqa", **changes: Any) -> str:
        own = {"name": "own", "adapter": "cqa", "path": "mine"}
        return workflow(datasets=["demo", "cqa", own], **changes).find_data_root(wildcards(dataset=dataset))

    assert root() == str(work / "data")
    assert root(data_root="mine") == str(work / "mine")
    monkeypatch.setenv(release.ENVIRONMENT, "/theirs")
    assert root() == "/theirs" and root(data_root="mine") == str(work / "mine")
    assert root("demo") == root("own") == "", "what these are read from is told by other settings"
    (work / "inner" / "datasets").mkdir(parents=True)
    assert root(data_root="inner") == str(work / "inner"), "a fetch must not change it"


def test_data_settings_follow_what_prepared_data_depend_on() -> None:
    base = workflow().digest_data_settings(wildcards())
    assert workflow(training={"steps": 3}, seeds=[4]).digest_data_settings(wildcards()) == base
    wider = {**STUDENT, "scratch": {"vocabulary": 77}}
    assert workflow(students=[wider]).digest_data_settings(wildcards()) != base
    other = workflow(datasets=[{"name": "demo", "answer": "equation"}])
    assert other.digest_data_settings(wildcards()) != base


def test_warnings_follow_what_cuts_texts() -> None:
    base = workflow(methods=["dss"]).digest_warning_settings(wildcards())
    assert workflow(methods=["mi"], training={"steps": 3}).digest_warning_settings(wildcards()) == base
    for changed in ({"methods": ["single_task"]}, {"training": {"max_input_tokens": 9}},
                    {"evaluation": {"max_new_tokens": 9}}):  # fmt: skip
        grid = workflow(**{"methods": ["dss"], **changed})
        assert grid.digest_warning_settings(wildcards()) != base
        assert grid.digest_data_settings(wildcards()) == workflow().digest_data_settings(wildcards())


def test_prepared_data_depend_on_no_method() -> None:
    for students in ([STUDENT], [{"name": "mini", "pretrained": "google/t5-v1_1-small"}]):
        one, other = (workflow(students=students, methods=names) for names in (["dss"], ["mi", "finetune"]))
        for grid in (one, other):
            assert grid.digest_data_settings(wildcards()) == one.digest_data_settings(wildcards())
            assert grid.fingerprint_preparation(wildcards()) == one.fingerprint_preparation(wildcards())
    found = closure("data.prepared", "data", "data.adapters.demo", "students.scratch", "students.pretrained")
    assert not [name for name in found if name.split(".")[0] == "methods"]

"""What a run needs on this machine, found without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cotdistill.orchestration.doctor import local

Fake = Callable[..., Path]
Make = Callable[..., Any]
Of = Callable[[Any], Any]

WHOLE = ("config.json", "tokenizer.json", "model.safetensors")
LINES = ["what colour is the cup", "predict: the colour", "explain: what is the cup"]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny T5 with its tokenizer."""
    from cotdistill import students
    from cotdistill.config.models import ScratchStudent
    from cotdistill.students import scratch

    folder = tmp_path_factory.mktemp("student") / "t5"
    tokenizer = scratch.train_tokenizer(LINES, 60)
    shape = ScratchStudent(d_model=8, d_ff=8, d_kv=4, heads=2, layers=1, vocabulary=60)
    students.save(scratch.build(shape, len(tokenizer), 0), tokenizer, folder)
    return folder


def copy(student: Path, folder: Path, *lost: str, **config: Any) -> Path:
    """The student's folder without some files, its config changed."""
    shutil.copytree(student, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    for name in lost:
        (folder / name).unlink()
    return folder


def cached(hub: Path, student: Path, **config: Any) -> Path:
    """A snapshot as the hub's library keeps it."""
    repository = hub / "models--google--t5-v1_1-small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    return copy(student, repository / "snapshots" / ("a" * 40), **config)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants, file_download

    folder = tmp_path / "hub"
    for module in (constants, file_download):
        if hasattr(module, "HF_HUB_CACHE"):
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(folder))
    return folder


def test_a_student_from_scratch_needs_nothing(make: Make, only: Of) -> None:
    assert only(local.check_students(make())).level == "ok"


def test_a_whole_folder_is_ok(make: Make, only: Of, student: Path) -> None:
    copy(student, Path("t5"))
    assert only(local.check_students(make(students=["./t5"]))).level == "ok"


@pytest.mark.parametrize(
    ("lost", "config", "words"),
    [
        (WHOLE[:1], {}, "config.json is missing"),
        (WHOLE[1:2], {}, "no tokenizer"),
        (WHOLE[2:], {}, "no weights"),
        ((), {"model_type": "bert"}, "type 'bert'; expected 't5'"),
        ((), {"model_type": None}, "type None"),
        ((), {"d_model": 16}, "has shape [8, 8]; expected [8, 16] by config.json"),
        ((), {"dropout_rate": None}, "dropout_rate: found null"),
        ((), {"pad_token_id": 5}, "its tokenizer has pad_token_id 0, the checkpoint 5"),
        ((), {"tie_word_embeddings": False}, "checkpoint lacks 1 weights, first 'lm_head.weight'"),
    ],
)
def test_what_preparing_would_refuse_is_a_failure(
    lost: tuple[str, ...], config: dict[str, Any], words: str, make: Make, only: Of, student: Path
) -> None:
    copy(student, Path("t5"), *lost, **config)
    found = only(local.check_students(make(students=["./t5"])))
    assert found.level == "FAIL" and words in found.text and "'pretrained' in grid.yaml" in found.advice
    assert found.text.startswith("t5: ") and found.text.count("student '") == 0


def test_weights_in_several_files_must_all_be_there(make: Make, only: Of, student: Path) -> None:
    from transformers import T5ForConditionalGeneration

    folder = copy(student, Path("t5"), "model.safetensors")
    T5ForConditionalGeneration.from_pretrained(student).save_pretrained(folder, max_shard_size="1KB")
    assert only(local.check_students(make(students=["./t5"]))).level == "ok"
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"lacks {shard.name}" in only(local.check_students(make(students=["./t5"]))).text


def test_a_student_of_the_cache_that_no_job_could_load_is_a_failure(
    make: Make, only: Of, hub: Path, student: Path
) -> None:
    cached(hub, student, layer_norm_epsilon=-1.0)
    found = only(local.check_students(make(students=["google/t5-v1_1-small"])))
    assert found.level == "FAIL" and "layer_norm_epsilon: found -1.0" in found.text


def test_a_pinned_revision_is_looked_for_in_the_cache(
    make: Make, only: Of, hub: Path, student: Path
) -> None:
    snapshot = cached(hub, student)
    entry = {"name": "pinned", "pretrained": "google/t5-v1_1-small", "revision": "b" * 40}
    assert only(local.check_students(make(students=[entry]))).level == "warn"
    site = make(students=[{**entry, "revision": "a" * 40}])
    assert only(local.check_students(site)).level == "ok"
    assert local.find_checkpoints(site) == {"pinned": snapshot}


def test_a_folder_that_is_not_there_is_a_failure(make: Make, only: Of) -> None:
    found = only(local.check_students(make(students=["/no/such/t5"])))
    assert found.level == "FAIL" and "/no/such/t5: no such folder" in found.text


def test_a_student_in_the_cache_is_ok_and_one_cut_off_is_fetched(
    make: Make, only: Of, hub: Path, student: Path
) -> None:
    snapshot = cached(hub, student)
    site = make(students=["google/t5-v1_1-small"])
    assert only(local.check_students(site)).level == "ok"
    assert local.find_checkpoints(site) == {"t5-v1_1-small": snapshot}
    (snapshot / "model.safetensors").unlink()
    found = only(local.check_students(site))
    assert found.level == "warn" and "no weights" in found.text and "--student t5-v1_1-small" in found.advice


def test_a_student_not_fetched_yet_is_a_failure_only_offline(
    make: Make, only: Of, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make(students=["google/t5-v1_1-small"])
    found = only(local.check_students(site))
    assert found.level == "warn" and "needs a network on this machine" in found.text
    assert "cotdistill prepare --config grid.yaml --dataset demo --student t5-v1_1-small" in found.advice
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert only(local.check_students(site)).level == "FAIL"


def test_names_that_the_hub_forbids_do_no_harm(make: Make, only: Of, hub: Path) -> None:
    students = [{"name": "odd", "pretrained": "a..b/c--d"}]
    assert only(local.check_students(make(students=students))).level == "warn"


def test_generated_and_own_data(make: Make, only: Of) -> None:
    assert only(local.check_data(make())).level == "ok"
    own = {"name": "mine", "adapter": "custom", "path": "rows"}
    found = only(local.check_data(make(datasets=[own])))
    assert found.level == "FAIL" and "rows lacks train.jsonl and test.jsonl" in found.text
    for name in ("train", "test"):
        Path("rows").mkdir(exist_ok=True)
        Path(f"rows/{name}.jsonl").touch()
    assert only(local.check_data(make(datasets=[own]))).level == "ok"


def test_published_data_are_found_or_will_be_fetched(make: Make, levels: Of) -> None:
    found = list(local.check_data(make(datasets=["cqa", "demo", "svamp"])))
    assert levels(found) == [("ok", "data"), ("warn", "data")]
    assert found[1].text.startswith("cqa, svamp: the fetch job downloads them")
    assert found[1].advice.endswith("cotdistill fetch --config grid.yaml")
    Path("data/datasets/cqa").mkdir(parents=True)
    Path("data/datasets/cqa/cqa_train.json").touch()
    found = list(local.check_data(make(datasets=["cqa"])))
    assert levels(found) == [("ok", "data")] and found[0].text == "cqa: data/datasets/cqa"


@pytest.mark.parametrize("how", ["root", "environment", "path"])
def test_a_named_folder_without_the_data_is_a_failure(
    how: str, make: Make, only: Of, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"datasets": ["cqa"]}
    if how == "root":
        changes["data_root"] = "elsewhere"
    elif how == "environment":
        monkeypatch.setenv("COTDISTILL_DATA", "elsewhere")
    else:
        changes["datasets"] = [{"name": "cqa", "path": "elsewhere"}]
    found = only(local.check_data(make(**changes)))
    assert found.level == "FAIL" and "elsewhere/cqa" in found.text and "--root elsewhere" in found.advice


@pytest.fixture
def snakemake(work: Path) -> Iterator[Callable[..., int]]:
    """Start what looks like a Snakemake in this folder."""
    (work.parent / "snakemake").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    started = []

    def start(*arguments: str) -> int:
        command = [sys.executable, str(work.parent / "snakemake"), *arguments]
        started.append(subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE))
        assert started[-1].stdout and started[-1].stdout.readline()
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_lock_is_stale_only_where_no_snakemake_works(
    make: Make, only: Of, snakemake: Callable[..., int]
) -> None:
    assert only(local.check_lock(make())).text == "none"
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.input.lock").touch()
    found = only(local.check_lock(make()))
    assert found.level == "warn" and found.advice.endswith("snakemake --unlock")
    snakemake("all", "--mode", "remote")  # a job of a snakemake that may be gone
    assert only(local.check_lock(make())).level == "warn"
    working = snakemake("--cores", "1")
    assert local.find_snakemakes() == [working]
    assert only(local.check_lock(make())).level == "ok"


def test_the_gpus_of_a_machine_without_slurm_are_counted(fake: Fake, make: Make, only: Of) -> None:
    site = make({"resources": ["gpu=4"]}, training={"device": "cuda", "gpus": 2})
    site.no_slurm = "no Slurm on this machine"
    assert only(local.check_gpu(site)).level == "FAIL"
    fake("nvidia-smi", 'for n in 0 1; do echo "GPU $n: NVIDIA H200 (UUID: GPU-secret)"; done')
    found = only(local.check_gpu(site))
    assert found.level == "warn" and "2 here (NVIDIA H200, NVIDIA H200)" in found.text
    assert "gpu=2" in found.advice and "secret" not in found.line()
    site = make(training={"device": "cuda"})
    site.no_slurm = "no Slurm on this machine"
    assert only(local.check_gpu(site)).level == "ok"


@pytest.mark.parametrize("answer", ["exit 9", "echo GPU", "echo 'GPU 0'; printf '\\377'", "echo none"])
def test_a_broken_driver_is_no_gpu(answer: str, fake: Fake, make: Make, only: Of) -> None:
    fake("nvidia-smi", answer)
    site = make(training={"device": "cuda"})
    site.no_slurm = "none"
    assert only(local.check_gpu(site)).level == "FAIL"


def test_gpus_of_this_machine_do_not_matter_to_a_cluster(make: Make) -> None:
    assert list(local.check_gpu(make(training={"device": "cuda"}))) == []


def test_looking_for_snakemakes_is_quick() -> None:
    started = time.monotonic()
    local.find_snakemakes()
    assert time.monotonic() - started < 5

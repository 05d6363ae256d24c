"""A run of every method, for real: what it leaves, and that the same config and seed leave the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill import students
from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, read_json, read_jsonl
from cotdistill.data.prepared import Prepared
from cotdistill.data.rows import SPLITS
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.hardware import describe_kernels
from cotdistill.jobs.train import train
from cotdistill.methods import METHODS, build
from cotdistill.runs.grid import Run

Read = Callable[..., Any]
every_method = pytest.mark.parametrize("method", METHODS.names())
TERMS = {
    "finetune": ["label"],
    "single_task": ["rationale_label"],
    "dss": ["label", "rationale"],
    "mi": ["label", "rationale", "mutual_information"],
    "infonce": ["label", "rationale", "mutual_information"],
    "gaussian": ["label", "rationale", "mutual_information"],
}


@every_method
def test_a_run_leaves_its_files_and_no_others(trained: Callable[[str], Run], method: str):
    names = {path.name for path in trained(method).folder.iterdir()}
    promised = {
        "config.json", "history.jsonl", "metrics.json", "predictions.jsonl", "environment.json", "model",
    }  # fmt: skip
    assert promised <= names
    assert names - promised <= {"model_last", "training.json", "answers"}, "no state, nothing half-written"


@every_method
def test_config_bears_its_hash(trained: Callable[[str], Run], method: str):
    run = trained(method)
    written = read_json(run.folder / "config.json")
    assert written["run"] == run.id
    assert written["hash"] == run.hash == digest(written["config"])
    assert written["config"] == json.loads(json.dumps(run.config))
    assert written["config"]["training"]["learning_rate"] == 0.01


@every_method
def test_history_has_the_promised_fields(trained: Callable[[str], Run], method: str):
    lines = read_jsonl(trained(method).folder / "history.jsonl")
    logged = [line for line in lines if "loss/total" in line]
    checked = [line for line in lines if "valid/accuracy" in line]
    assert [line["step"] for line in logged] == [3, 6, 9, 12]
    assert [line["step"] for line in checked] == [4, 8, 12]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    terms = {key.removeprefix("loss/") for key in logged[0] if key.startswith("loss/")} - {"total"}
    assert terms == set(TERMS.get(method, terms)) and terms
    fields = {"step", "epoch", "loss/total", "learning_rate", "gradient_norm", "examples_per_second"}
    for line in logged:
        assert set(line) == fields | {f"loss/{term}" for term in terms}
        assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in line.values())
        assert line["gradient_norm"] > 0 and line["examples_per_second"] > 0
        assert line["epoch"] == pytest.approx(line["step"] / 4, abs=1e-4)  # 26 rows in batches of 8
    for line in checked:
        assert set(line) == {"step", "epoch", "valid/accuracy", "valid/n"}
        assert line["valid/n"] == 8 and 0 <= line["valid/accuracy"] <= 1


@every_method
def test_metrics_and_environment(trained: Callable[[str], Run], method: str):
    run = trained(method)
    metrics, environment = read_json(run.folder / "metrics.json"), read_json(run.folder / "environment.json")
    assert (metrics["run"], metrics["hash"]) == (run.id, run.hash)
    assert metrics["published"]["step"] == 12 and metrics["strict"]["step"] in (4, 8, 12)
    assert metrics["sizes"] == {"train": 26, "valid": 8, "test": 8}
    assert metrics["teacher"]["train"]["n"] == 26 and metrics["teacher"]["train"]["correct"] < 26
    assert {"torch", "transformers", "python", "cotdistill"} <= set(environment["versions"])
    assert environment["device"] == "cpu" and environment["hardware"]["processes"] == 1
    hardware = environment["hardware"]
    assert hardware["kernels"] == describe_kernels("cpu") and hardware["kernels"]["deterministic"] is True
    assert "earlier" not in hardware
    assert hardware["kernels"]["aten"] == torch.backends.cpu.get_cpu_capability()
    assert (hardware["threads"], hardware["interop_threads"]) == (1, torch.get_num_interop_threads())
    manifest = read_json(run.prepared / "manifest.json")
    assert environment["data_checksum"] == manifest["checksum"]
    assert environment["split_ids"] == manifest["split_ids"] and set(manifest["split_ids"]) == set(SPLITS)
    assert environment["wall_s"] > 0 and environment["peak_memory_mb"] > 0
    assert environment["started_at"] <= environment["finished_at"]


@every_method
def test_predictions_have_the_promised_fields(trained: Callable[[str], Run], method: str):
    run = trained(method)
    lines = read_jsonl(run.folder / "predictions.jsonl")
    rationales = {"rationale", "teacher_rationale"} if build(method).rationale_task else set()
    fields = {"id", "input", "gold", "prediction", "correct", "confidence", "options", "option_probabilities",
              "option_log_likelihoods", "option_tokens", "group"}  # fmt: skip
    assert len(lines) == 8
    for line in lines:
        assert set(line) == fields | rationales
        assert isinstance(line["correct"], bool) and 0 < line["confidence"] <= 1
    table = Prepared(run.prepared).table("test")
    assert [line["id"] for line in lines] == table.column("id").to_pylist()
    assert [line["input"] for line in lines] == table.column("input").to_pylist()
    assert [line["gold"] for line in lines] == table.column("label").to_pylist()


@every_method
def test_the_model_folder_loads_with_transformers_alone(trained: Callable[[str], Run], method: str):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    run = trained(method)
    model = AutoModelForSeq2SeqLM.from_pretrained(run.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    ours = students.load_saved(run.folder / "model").eval()
    ids = tokenizer("predict: what colour is the cup of ann?", return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "predict: what colour is the cup of ann?"
    with torch.no_grad():
        logits = [each(input_ids=ids, decoder_input_ids=ids).logits for each in (model, ours)]
    assert torch.equal(logits[0], logits[1])


@every_method
def test_the_same_config_and_seed_give_the_same_bytes(
    tiny: Any, trained: Callable[[str], Run], tmp_path: Path, weights: Read, history: Read, method: str
):
    first = trained(method)
    torch.manual_seed(123)  # the process's own random state must not matter
    again = tiny.run(tmp_path, method, evaluation={"rationales": True})
    train(again)
    evaluate(again)
    assert again.hash == first.hash
    for which in ("model", "model_last"):
        assert weights(again, which) == weights(first, which)
    assert history(again) == history(first)
    files = [run.folder / "predictions.jsonl" for run in (first, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_another_seed_gives_another_run(
    tiny: Any, trained: Callable[[str], Run], tmp_path: Path, weights: Read
):
    other = tiny.run(tmp_path, "dss", seed=1)
    train(other)
    assert other.hash != trained("dss").hash
    assert weights(other) != weights(trained("dss"))


def test_a_trained_run_is_not_trained_again(tiny: Any, trained: Callable[[str], Run], capsys: Any):
    run = trained("dss")
    before = (run.folder / "training.json").stat().st_mtime_ns
    train(run)
    assert "already trained, nothing to do" in capsys.readouterr().out
    assert (run.folder / "training.json").stat().st_mtime_ns == before


def test_the_folder_of_another_config_is_refused(tiny: Any, trained: Callable[[str], Run], tmp_path: Path):
    import shutil

    other = tiny.run(tmp_path, "dss", learning_rate=0.02)
    shutil.copytree(trained("dss").folder, other.folder)
    for call in (train, evaluate):
        with pytest.raises(UserError, match=f"{trained('dss').hash}, expected {other.hash}") as caught:
            call(other)
        assert "\n" not in str(caught.value)


def test_evaluating_before_training_is_refused(tiny: Any, tmp_path: Path):
    with pytest.raises(UserError, match=r"training\.json: no such file"):
        evaluate(tiny.run(tmp_path))


def test_training_before_preparing_is_refused(tiny: Any, tmp_path: Path):
    run = type(tiny)(tiny.data).run(tmp_path)
    with pytest.raises(UserError, match=r"manifest\.json: no such file"):
        train(run)


@pytest.fixture(scope="module")
def longer(tiny: Any, once: Any) -> Run:
    """A run long enough to learn the colours, validated often."""
    more = {"steps": 90, "eval_every": 5, "log_every": 10, "scratch": {"dropout": 0}}

    def build(folder: Path) -> None:
        run = tiny.run(folder, "dss", **more)
        train(run)
        evaluate(run)

    return tiny.run(once("longer", build), "dss", **more)


def test_the_loss_goes_down(longer: Run, history: Read):
    losses = [line for line in history(longer) if "loss/total" in line]
    for term in ("total", "label", "rationale"):
        values = [line[f"loss/{term}"] for line in losses]
        assert values[-1] < 0.5 * values[0]
        assert values[1] < values[0]


def test_the_kept_model_is_the_best_on_validation(longer: Run, history: Read):
    from cotdistill import methods
    from cotdistill.evaluation.scores import score
    from cotdistill.inference.generate import Generator

    checked = {line["step"]: line["valid/accuracy"] for line in history(longer) if "valid/accuracy" in line}
    marker = read_json(longer.folder / "training.json")
    best = max(checked.values())
    assert len(set(checked.values())) > 1 and best > 0, "this run says something about the choice"
    assert marker["best_valid_accuracy"] == best
    assert marker["best_step"] == min(step for step, value in checked.items() if value == best)
    assert marker["steps"] == 90
    generator = Generator(longer, Prepared(longer.prepared), methods.build("dss"), "packed")
    for which, expected in (("model", best), ("model_last", checked[90])):
        answers = generator.answer(students.load_saved(longer.folder / which), "valid")
        assert score(answers)["accuracy"] == expected
    metrics = read_json(longer.folder / "metrics.json")
    assert metrics["strict"]["step"] == marker["best_step"]
    assert metrics["strict"]["valid_accuracy"] == best

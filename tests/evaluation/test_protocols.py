"""The two protocols, and metrics as what they are: sums over predictions.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill import methods, students
from cotdistill.common.errors import UserError
from cotdistill.common.files import (
    digest,
    hash_file,
    read_json,
    read_jsonl,
    seal,
    write_json,
    write_jsonl,
)
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation import calibration, rationale_quality
from cotdistill.inference.generate import Generator
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.prepare import prepare
from cotdistill.jobs.train import train
from cotdistill.methods import METHODS
from cotdistill.runs import answers as stored
from cotdistill.runs.documents import Answer
from cotdistill.runs.folder import LAST, STRICT
from cotdistill.runs.grid import Run

EQUATIONS = [  # the gold answer, what the student writes, whether their values are equal
    ("( 4.0 - 3.0 )", "( 1.0 * 1.0 )", True),
    ("( 8.0 / 2.0 )", "( 2.0 + 2.0 )", True),
    ("( 8.0 / 2.0 )", "( 2.0 / 8.0 )", False),
    ("( 3.0 + 1.0 )", "( 3.0 + 1.0 )", True),
    ("( 3.0 + 1.0 )", "( 3.0 + 1.0", False),
    ("( 3.0 + 1.0 )", "__import__('os').getpid()", False),
    ("( 3.0 + 1.0 )", "( 1.0 / 0.0 )", False),
    ("( 3.0 + 1.0 )", "", False),
]
TRAINING = {"batch_size": 4, "eval_every": 1, "device": "cpu", "max_target_tokens": 12}


@pytest.mark.parametrize("method", METHODS.names())
def test_metrics_follow_from_the_predictions(trained: Callable[[str], Run], method: str):
    run = trained(method)
    strict = read_json(run.folder / "metrics.json")["strict"]
    lines = read_jsonl(run.folder / "predictions.jsonl")
    correct = sum(line["prediction"] == line["gold"] for line in lines)
    assert [line["correct"] for line in lines] == [line["prediction"] == line["gold"] for line in lines]
    assert (strict["test_correct"], strict["test_n"]) == (correct, len(lines))
    assert strict["test_accuracy"] == correct / len(lines)
    assert strict["mean_confidence"] == pytest.approx(sum(line["confidence"] for line in lines) / len(lines))


def test_strict_takes_the_best_checkpoint_and_published_the_last(tiny: Any, tmp_path: Path):
    """The best comes early and the last step is worse: a big rate after it spoils the student."""
    from cotdistill.jobs import train as job

    run = tiny.run(tmp_path, "dss", steps=30, eval_every=15, scratch={"dropout": 0})
    with pytest.MonkeyPatch.context() as patch:
        results = iter([0.75, 0.25])
        patch.setattr(job, "score", lambda answers: {"accuracy": next(results), "n": len(answers)})
        train(run)
    metrics = evaluate(run)
    made = Generator(run, Prepared(run.prepared), methods.build("dss"), "packed")
    parts = {"strict": ("model", 15), "published": ("model_last", 30)}
    confidences = []
    for protocol, (folder, step) in parts.items():
        answers = made.answer(students.load_saved(run.folder / folder), "test")
        score = getattr(metrics, protocol)
        assert score.step == step
        assert score.test_correct == sum(answer.correct for answer in answers)
        confidences.append(sum(answer.confidence for answer in answers) / 8)
        assert score.mean_confidence == pytest.approx(confidences[-1])
        if protocol == "strict":
            lines = read_jsonl(run.folder / "predictions.jsonl")
            assert [line["prediction"] for line in lines] == [answer.prediction for answer in answers]
            assert score.valid_accuracy == 0.75
    assert confidences[0] != pytest.approx(confidences[1]), "the two checkpoints differ"


def test_evaluating_again_gives_the_same_files(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, "finetune")
    train(run)
    files = [run.folder / "predictions.jsonl", run.folder / "metrics.json"]
    contents = []
    for again in range(3):
        if again == 2:  # without what training left: the answers are made anew
            for file in (run.folder / "answers").glob("*"):
                file.unlink()
        metrics = evaluate(run).model_dump()
        del metrics["evaluation_wall_s"]
        contents.append((files[0].read_bytes(), metrics))
        assert read_json(files[1])["strict"] == metrics["strict"]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("folder", ["model", "model_last"])
def test_weights_that_training_did_not_write_are_refused(tiny: Any, tmp_path: Path, folder: str):
    from safetensors.torch import load_file, save_file

    run = tiny.run(tmp_path, "finetune", steps=30, eval_every=30)
    train(run)
    file = run.folder / folder / "model.safetensors"
    tensors = {name: value + 0.05 * torch.ones_like(value) for name, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{folder}/model.safetensors: corrupt: .* train again$"):
        evaluate(run)
    assert not (run.folder / "metrics.json").exists()


def test_corrupt_answers_are_made_anew(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, "finetune")
    train(run)
    before = evaluate(run)
    assert stored.is_key_current(run, STRICT) and stored.are_current(run, STRICT)
    for file in (run.folder / "answers").glob("*.jsonl"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    # planning looks at the key alone, evaluation at the bytes
    assert stored.is_key_current(run, STRICT) and not stored.are_current(run, STRICT)
    after = evaluate(run)
    assert after.strict == before.strict and after.published == before.published


@pytest.mark.parametrize(("kind", "right"), [("equation", 3), ("text", 1)])
def test_equations_are_compared_by_value(tiny: Any, tmp_path: Path, monkeypatch: Any, kind: str, right: int):
    rows = [{"input": f"number {n} of pears?", "label": gold, "rationale": "so"}
            for n, (gold, _, _) in enumerate(EQUATIONS)]  # fmt: skip
    for split in ("train", "valid", "test"):
        file = tmp_path / "data" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"name": "sums", "adapter": "custom", "path": str(tmp_path / "data"), "answer": kind}
    run = type(tiny)(tiny.data).run(tmp_path, "finetune", dataset=dataset, steps=1)
    prepare(run.experiment, run.dataset, run.student, run.prepared)
    written = [(text, 0.5, []) for _, text, _ in EQUATIONS]
    monkeypatch.setattr(Generator, "_answer_in_batches", lambda self, model, split, journal, work: written)
    train(run)
    metrics = evaluate(run)
    verdicts = [line["correct"] for line in read_jsonl(run.folder / "predictions.jsonl")]
    assert metrics.strict.test_correct == sum(verdicts) == right
    assert metrics.strict.valid_accuracy == right / len(EQUATIONS), "validation compares as test does"
    if kind == "equation":
        assert verdicts == [verdict for _, _, verdict in EQUATIONS]


@pytest.mark.parametrize("method", METHODS.names())
def test_measures_follow_from_the_predictions(trained: Callable[[str], Run], method: str):
    run = trained(method)
    measures = read_json(run.folder / "metrics.json")["measures"]
    answers = [Answer(**line) for line in read_jsonl(run.folder / "predictions.jsonl")]
    assert measures["calibration"] == calibration.measure(answers, 10)
    assert measures["calibration"]["sequence"]["n"] == len(answers)
    assert "options" not in measures["calibration"], "an open label set"
    writes = methods.build(method).rationale_task is not None
    assert ("rationale" in measures) == writes
    if writes:
        # of an open label set, of which the adapter can read no label
        expected = rationale_quality.measure(answers, "text", lambda text, options: "", open_labels=False)
        assert measures["rationale"] == expected
        table = Prepared(run.prepared).table("test").to_pylist()
        assert [answer.teacher_rationale for answer in answers] == [row["rationale"] for row in table]


@pytest.fixture
def demo(tmp_path: Path) -> Callable[..., Run]:
    """A run of two steps on the demo, whose labels have options and whose rationales state them."""
    from cotdistill.runs.experiment import parse
    from cotdistill.runs.grid import expand

    def make(**evaluation: Any) -> Run:
        values = {
            "experiment": "small", "datasets": ["demo"], "methods": ["dss"], "seeds": [0],
            "students": [{"name": "tiny", "scratch": {"d_model": 16, "d_ff": 32, "heads": 2, "layers": 1}}],
            "training": {**TRAINING, "steps": 2}, "results": str(tmp_path),
            "evaluation": {"max_new_tokens": 4, **evaluation},
        }  # fmt: skip
        (run,) = expand(parse(values, "test"))
        if not run.prepared.exists():
            prepare(run.experiment, run.dataset, run.student, run.prepared)
        return run

    return make


def test_the_demo_is_measured_by_options_and_by_what_rationales_state(demo: Any, monkeypatch: Any):
    run = demo(bins=7)
    table = Prepared(run.prepared).table("test").to_pylist()
    told = [row["rationale"] if n % 3 else "" for n, row in enumerate(table)]
    monkeypatch.setattr(Generator, "write_rationales", lambda self, model, split, journal=None: told)
    train(run)
    measures = evaluate(run).measures
    lines = read_jsonl(run.folder / "predictions.jsonl")
    assert set(measures["calibration"]) == {"sequence", "options"}
    options = measures["calibration"]["options"]
    assert (options["n"], options["bins"]) == (210, 7) and options["nll"] > 0
    best = [line["options"][max(range(7), key=line["option_probabilities"].__getitem__)] for line in lines]
    right = sum(label == line["gold"] for label, line in zip(best, lines, strict=True))
    assert options["accuracy"] == pytest.approx(right / 210)
    rationale = measures["rationale"]
    assert rationale["states_label"] == pytest.approx(140 / 210) and rationale["faithful_gold"] == 1
    assert (rationale["n"], rationale["n_teacher"]) == (210, 210)


def test_another_number_of_bins_measures_anew_and_answers_nothing_anew(demo: Any, monkeypatch: Any):
    run = demo(rationales=False)
    train(run)
    first = evaluate(run).measures
    assert "rationale" not in first
    monkeypatch.setattr(Generator, "_answer_in_batches", None)
    other = demo(rationales=False, bins=3)
    assert other.hash == run.hash
    second = evaluate(other).measures["calibration"]["options"]
    assert second["bins"] == 3 and second["brier"] == first["calibration"]["options"]["brier"]
    judged = demo(rationales=False, judge={"url": "http://localhost", "model": "m"})
    assert judged.hash == run.hash


def test_groups_of_the_data_reach_answers_and_counts(demo: Any):
    run = demo(rationales=False)
    train(run)
    metrics = evaluate(run)
    groups = [line["group"] for line in read_jsonl(run.folder / "predictions.jsonl")]
    assert groups == Prepared(run.prepared).table("test").column("group").to_pylist()
    count = len(set(groups))
    assert 1 < count < metrics.strict.test_n and "" not in groups
    assert metrics.strict.test_groups == metrics.published.test_groups == count


def test_answers_that_are_gone_have_no_key(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, "finetune")
    train(run)
    (run.folder / "answers" / f"{LAST}.jsonl").unlink()
    assert stored.is_key_current(run, STRICT) and not stored.is_key_current(run, LAST)


def test_answers_of_older_code_are_made_anew(demo: Any):
    """As they stand where an earlier version answered: rows without the new fields under another key."""
    run = demo(rationales=False)
    train(run)
    wanted = evaluate(run).measures
    for checkpoint in (STRICT, LAST):
        rows = run.folder / "answers" / f"{checkpoint}.jsonl"
        write_jsonl(rows, [{key: line[key] for key in list(line)[:6]} for line in read_jsonl(rows)])
        key = digest([run.hash, "0123456789abcdef", "weights", False])
        about = {"key": key, "seconds": 1.0, "sha256": hash_file(rows)}
        write_json(run.folder / "answers" / f"{checkpoint}.json", seal(about))
    assert evaluate(run).measures == wanted
    assert all(line["option_probabilities"] for line in read_jsonl(run.folder / "predictions.jsonl"))

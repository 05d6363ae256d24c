"""The two protocols, and metrics as what they are: sums over predictions.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill import methods, students
from cotdistill.config.grid import Run
from cotdistill.data.prepared import Prepared, prepare
from cotdistill.errors import UserError
from cotdistill.evaluation.generate import Generator
from cotdistill.evaluation.protocols import evaluate
from cotdistill.files import read_json, read_jsonl
from cotdistill.methods import METHODS
from cotdistill.training.loop import train

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
    from cotdistill.training import loop

    run = tiny.run(tmp_path, "dss", steps=30, eval_every=15, scratch={"dropout": 0})
    with pytest.MonkeyPatch.context() as patch:
        results = iter([0.75, 0.25])
        patch.setattr(loop, "score", lambda answers: {"accuracy": next(results), "n": len(answers)})
        train(run)
    metrics = evaluate(run)
    made = Generator(run, Prepared(run.prepared), methods.build("dss"), torch.device("cpu"))
    parts = {"strict": ("model", 15), "published": ("model_last", 30)}
    confidences = []
    for protocol, (folder, step) in parts.items():
        answers = made.answers(students.load_saved(run.folder / folder), "test")
        assert metrics[protocol]["step"] == step
        assert metrics[protocol]["test_correct"] == sum(answer.correct for answer in answers)
        confidences.append(sum(answer.confidence for answer in answers) / 8)
        assert metrics[protocol]["mean_confidence"] == pytest.approx(confidences[-1])
        if protocol == "strict":
            lines = read_jsonl(run.folder / "predictions.jsonl")
            assert [line["prediction"] for line in lines] == [answer.prediction for answer in answers]
            assert metrics[protocol]["valid_accuracy"] == 0.75
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
        metrics = {key: value for key, value in evaluate(run).items() if key != "evaluation_wall_s"}
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
    for file in (run.folder / "answers").glob("*.jsonl"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    after = evaluate(run)
    assert after["strict"] == before["strict"] and after["published"] == before["published"]


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
    written = [text for _, text, _ in EQUATIONS], [0.5] * len(EQUATIONS)
    monkeypatch.setattr(Generator, "_generate", lambda self, model, task, split, longest, journal: written)
    train(run)
    metrics = evaluate(run)
    verdicts = [line["correct"] for line in read_jsonl(run.folder / "predictions.jsonl")]
    assert metrics["strict"]["test_correct"] == sum(verdicts) == right
    assert metrics["strict"]["valid_accuracy"] == right / len(EQUATIONS), "validation compares as test does"
    if kind == "equation":
        assert verdicts == [verdict for _, _, verdict in EQUATIONS]

"""Generation in sorted batches against one example at a time, and confidence against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill import methods, students
from cotdistill.config.grid import Run
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation.generate import Confidence, Generator
from cotdistill.evaluation.scores import Answer, score
from cotdistill.training.loop import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learned(tiny: Any, once: Any) -> Run:
    """A student that writes labels of different lengths, some of them right."""
    more = {
        "steps": 90, "eval_every": 90, "batch_size": 13, "learning_rate": 0.02, "scratch": {"dropout": 0},
    }  # fmt: skip
    return tiny.run(once("learned", lambda folder: train(tiny.run(folder, "dss", **more))), "dss", **more)


def generator(run: Run) -> Generator:
    method = methods.build(run.method.method, run.method.settings)
    return Generator(run, Prepared(run.prepared), method, CPU)


def greedy(model: Any, ids: list[int], longest: int) -> list[int]:
    """Greedy decoding of one input, by hand: no batch, no padding, no cache."""
    written = [0]
    while len(written) <= longest and written[-1] != 1:
        logits = model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([written])).logits
        written.append(int(logits[0, -1].argmax()))
    return written[1:]


def probability(model: Any, ids: list[int], written: list[int]) -> float:
    """The product of each written token's softmax probability, from one teacher-forced pass."""
    inputs, shifted = torch.tensor([ids]), torch.tensor([[0, *written[:-1]]])
    logits = model(input_ids=inputs, decoder_input_ids=shifted).logits[0]
    result = 1.0
    for row, token in zip(logits.double().tolist(), written, strict=True):
        exponentials = [math.exp(value - max(row)) for value in row]
        result *= exponentials[token] / sum(exponentials)
    return result


@torch.no_grad()
@pytest.mark.parametrize("longest", [14, 3])
@pytest.mark.parametrize("size", [3, 8])
def test_answers_and_confidence_are_those_of_one_example_at_a_time(
    tiny: Any, tmp_path: Path, learned: Run, size: int, longest: int
):
    run = tiny.run(tmp_path, "dss", evaluation={"batch_size": size, "max_new_tokens": longest})
    model = students.load_saved(learned.folder / "model_last").eval()
    made = generator(run)
    answers = made.answers(model, "test")
    table, tokenizer = Prepared(run.prepared).table("test").to_pylist(), made.tokenizer
    assert [answer.id for answer in answers] == [row["id"] for row in table]
    lengths = set()
    for answer, row in zip(answers, table, strict=True):
        ids = tokenizer("predict: " + row["input"])["input_ids"]
        written = greedy(model, ids, longest)
        lengths.add(len(written))
        assert answer.prediction == tokenizer.decode(written, skip_special_tokens=True)
        assert answer.confidence == pytest.approx(probability(model, ids, written), rel=1e-4)
        assert 0 < answer.confidence <= 1
        assert (answer.input, answer.gold) == (row["input"], row["label"])
        assert answer.correct == (answer.prediction == row["label"])
    assert longest == 3 or len(lengths) > 1, "answers of one batch end at different steps"


@torch.no_grad()
def test_rationales_are_those_of_one_example_at_a_time(learned: Run):
    model = students.load_saved(learned.folder / "model_last").eval()
    made = generator(learned)
    found = made.rationales(model, "test")
    table = Prepared(learned.prepared).table("test").to_pylist()
    for text, row in list(zip(found, table, strict=True))[:3]:
        ids = made.tokenizer("explain: " + row["input"])["input_ids"]
        written = greedy(model, ids, learned.training.max_target_tokens)
        assert text == made.tokenizer.decode(written, skip_special_tokens=True)


def test_generating_draws_no_dropout_and_leaves_the_weights(learned: Run):
    model = students.load_saved(learned.folder / "model_last")
    before = model.shared.weight.detach().clone()
    model.config.dropout_rate = 0.5
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    model.train()
    first, second = generator(learned).answers(model, "valid"), generator(learned).answers(model, "valid")
    assert first == second
    assert torch.equal(model.shared.weight, before) and model.shared.weight.requires_grad


@pytest.mark.parametrize("method", ["finetune", "single_task"])
def test_methods_without_a_rationale_task_generate_none(trained: Callable[[str], Run], method: str):
    run = trained(method)
    assert generator(run).rationales(students.load_saved(run.folder / "model"), "test") is None


def test_single_task_reads_its_label_from_the_generated_text(
    trained: Callable[[str], Run], monkeypatch: Any
):
    made = generator(trained("single_task"))
    table = made.prepared.table("test").to_pylist()
    texts = [f"because. So the answer is: {row['label']}" for row in table]
    texts[1] = "I never say it: red"
    seen = []

    def generate(model: Any, task: Any, split: str, longest: int, journal: Any) -> Any:
        seen.append((task.name, split, longest))
        return texts, [0.5] * len(texts)

    monkeypatch.setattr(made, "_generate", generate)
    answers = made.answers(None, "test")  # type: ignore[arg-type]
    # what holds a rationale may be as long as a target
    assert seen == [("rationale_label", "test", made.run.training.max_target_tokens)]
    assert [answer.correct for answer in answers] == [number != 1 for number in range(8)]
    assert answers[1].prediction == "" and answers[0].prediction == table[0]["label"]


def test_confidence_of_a_long_unsure_sequence_is_not_zero():
    confidence = Confidence(end=1)
    scores = torch.zeros(1, 32)  # every token has probability 1/32
    for step in range(100):
        assert torch.equal(confidence(torch.full((1, step + 1), 5), scores), scores)
    assert confidence.total.exp().item() == pytest.approx(32.0**-100, rel=1e-4)


def test_confidence_stops_at_the_end_token():
    confidence = Confidence(end=1)
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]]))
    for written in ([[0], [0]], [[0, 2], [0, 1]], [[0, 2, 1], [0, 1, 0]]):
        confidence(torch.tensor(written), scores)
    assert confidence.total.exp().tolist() == pytest.approx([0.25, 0.7])


def test_scores():
    answers = [Answer(str(n), "x", "a", "a", n < 3, n / 10) for n in range(1, 5)]
    expected = {"accuracy": 0.5, "correct": 2, "n": 4, "mean_confidence": pytest.approx(0.25)}
    assert score(answers) == expected
    assert score([]) == {"accuracy": None, "correct": 0, "n": 0, "mean_confidence": None}

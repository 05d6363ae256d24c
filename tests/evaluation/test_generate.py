"""Generation in sorted batches against one example at a time, and confidence against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill import methods, students
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation.scores import score
from cotdistill.inference.generate import Generator
from cotdistill.jobs.train import train
from cotdistill.runs.documents import Answer
from cotdistill.runs.grid import Run
from cotdistill.students.packed import writing as decoding
from cotdistill.students.packed.writing import Writer


@pytest.fixture(scope="module")
def learned(tiny: Any, once: Any) -> Run:
    """A student that writes labels of different lengths, some of them right."""
    more = {
        "steps": 90, "eval_every": 90, "batch_size": 13, "learning_rate": 0.02, "scratch": {"dropout": 0},
    }  # fmt: skip
    return tiny.run(once("learned", lambda folder: train(tiny.run(folder, "dss", **more))), "dss", **more)


def generator(run: Run) -> Generator:
    method = methods.build(run.method.method, run.method.settings)
    return Generator(run, Prepared(run.prepared), method, "packed")


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
    answers = made.answer(model, "test")
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
    found = made.write_rationales(model, "test")
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
    first, second = generator(learned).answer(model, "valid"), generator(learned).answer(model, "valid")
    assert first == second
    assert torch.equal(model.shared.weight, before) and model.shared.weight.requires_grad


@pytest.mark.parametrize("method", ["finetune", "single_task"])
def test_methods_without_a_rationale_task_generate_none(trained: Callable[[str], Run], method: str):
    run = trained(method)
    assert generator(run).write_rationales(students.load_saved(run.folder / "model"), "test") is None


def test_single_task_reads_its_label_from_the_generated_text(
    trained: Callable[[str], Run], monkeypatch: Any
):
    run = trained("single_task")
    made, model = generator(run), students.load_saved(run.folder / "model")
    table = made.prepared.table("test").to_pylist()
    texts = [f"because. So the answer is: {row['label']}" for row in table]
    texts[1] = "I never say it: red"
    seen = []

    def batch(writer: Any, options: Any, task: Any, split: str, rows: list[int], longest: int) -> Any:
        seen.append((task.name, split, longest))
        return [(texts[row], 0.5, []) for row in rows]

    monkeypatch.setattr(made, "_generate_batch", batch)
    every = list(range(len(texts)))
    monkeypatch.setattr(made, "_answer_in_batches", lambda model, split, journal, work: work(every))
    answers = made.answer(model, "test")
    # what holds a rationale may be as long as a target
    assert seen == [("rationale_label", "test", made.run.training.max_target_tokens)]
    assert [answer.correct for answer in answers] == [number != 1 for number in range(8)]
    assert answers[1].prediction == "" and answers[0].prediction == table[0]["label"]


@pytest.fixture
def unsure() -> Any:
    """A v1.1 student with 32 tokens, all as probable, whose greedy choice is never the end."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=32, d_model=8, d_ff=8, d_kv=4, num_heads=2, num_layers=1,
                      feed_forward_proj="gated-gelu", decoder_start_token_id=0)  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    model.shared.weight.data.zero_()
    return model


def written(model: Any, longest: int, lengths: list[int], precision: str = "fp32", end: int = 1) -> Any:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (sum(lengths),), generator=draw)
    writer = Writer(model, precision)
    return ids.split(lengths), writer.write(writer.read(ids.split(lengths)), longest, end)


def test_confidence_of_a_long_unsure_sequence_is_not_zero(unsure: Any):
    _, ((tokens, log),) = written(unsure, 100, [5])
    assert len(tokens) == 100
    assert math.exp(log) == pytest.approx(32.0**-100, rel=1e-4)


@pytest.mark.parametrize(("kind", "tied"), [("gated-gelu", False), ("relu", True), ("gated-silu", True)])
@pytest.mark.parametrize("room", [16, 1])
def test_greedy_is_that_of_transformers(kind: str, tied: bool, room: int, monkeypatch: Any):
    from transformers import T5Config, T5ForConditionalGeneration

    monkeypatch.setattr(decoding, "ROOM", room)
    torch.manual_seed(3)
    config = T5Config(vocab_size=20, d_model=16, d_ff=32, d_kv=4, num_heads=3, num_layers=2,
                      feed_forward_proj=kind, decoder_start_token_id=0)  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(20, 16))
        model.config.scale_decoder_outputs = False
    lengths = [9, 9, 7, 4, 4, 2, 1, 1]
    first = [tokens for tokens, _ in written(model, 30, lengths)[1]]
    # a token that ends them at different steps
    end = max(range(20), key=lambda token: len({(*tokens, token).index(token) for tokens in first}))
    inputs, found = written(model, 30, lengths, end=end)
    ends = set()
    for ids, (tokens, log) in zip(inputs, found, strict=True):
        expected = model.generate(input_ids=ids[None], max_new_tokens=30, do_sample=False, num_beams=1,
                                  eos_token_id=end)  # fmt: skip
        assert tokens == expected[0, 1:].tolist()
        assert math.exp(log) == pytest.approx(probability(model, ids.tolist(), tokens), rel=1e-4)
        ends.add(len(tokens))
    assert len(ends) > 2, "they end at different steps"


def test_greedy_in_bf16_is_near(unsure: Any):
    torch.manual_seed(5)
    unsure.shared.weight.data.normal_()
    (_, exact), (_, near) = (written(unsure, 3, [6, 3], precision) for precision in ("fp32", "bf16"))
    for (_, first), (_, second) in zip(exact, near, strict=True):
        assert second == pytest.approx(first, abs=0.1)


def test_scores():
    answers = [Answer(str(n), "x", "a", "a", n < 3, n / 10) for n in range(1, 5)]
    expected = {"accuracy": 0.5, "correct": 2, "n": 4, "groups": 4, "mean_confidence": pytest.approx(0.25)}
    assert score(answers) == expected
    assert score([]) == {"accuracy": None, "correct": 0, "n": 0, "groups": 0, "mean_confidence": None}

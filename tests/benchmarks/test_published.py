"""The published way computes what METHOD says, and our trainer follows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch


def logits(shape: tuple[int, int, int], k: int) -> torch.Tensor:
    """METHOD's golden logits."""
    values = [3 * math.sin(0.7 * i + k) + 2 * math.cos(0.013 * i * k + 1) for i in range(math.prod(shape))]
    return torch.tensor(values).reshape(shape)


def test_the_released_term_has_the_golden_value() -> None:
    from benchmarks.published import mutual_information

    label, rationale = logits((2, 3, 11), 1), logits((2, 5, 11), 2).requires_grad_()
    ones = [torch.ones(2, 3, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)]
    loss = mutual_information(label, rationale, *ones, "released")
    loss.backward()
    assert loss.item() == pytest.approx(5.85973883, rel=1e-6)
    assert rationale.grad is not None
    assert rationale.grad.norm().item() == pytest.approx(0.06447206, rel=1e-5)


def test_the_papers_term_is_the_bound_without_padding() -> None:
    from benchmarks.published import mutual_information

    label, rationale = logits((2, 3, 11), 1).double(), logits((2, 5, 11), 2).double()
    labels, aux = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    labels[1, 1:], aux[0, 3:] = -100, -100
    expected = 0.0
    for row in range(2):
        pooled = []
        for values, ids in ((label, labels), (rationale, aux)):
            real = [values[row, t].softmax(-1).tolist() for t in range(ids.shape[1]) if ids[row, t] != -100]
            most = [max(column) for column in zip(*real, strict=True)]
            pooled.append([value / sum(most) for value in most])
        expected -= sum(p * math.log(q) for p, q in zip(*pooled, strict=True)) / 2
    found = mutual_information(label, rationale, labels, aux, "paper")
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["finetune", "dss", "mi-released", "mi-paper"])
def test_twenty_steps_of_ours_follow_the_published_trainer(run_of: Any, tmp_path: Path, method: str) -> None:
    from benchmarks.speed.ways import Ours, published_trainer

    run = run_of(method, batch_size=13, steps=20)
    ours = Ours(run)
    order = [int(row) for number in range(1, 21) for row in ours.trainer.order.batch(number)]
    prepared = ours.trainer.generator.prepared
    theirs = published_trainer(run, prepared, tmp_path / "published", order, 20, log=True)
    theirs.train()
    lines = [line for line in theirs.state.log_history if "loss" in line]
    values = [ours.step(number).tolist() for number in range(1, 21)]
    assert len(lines) == len(values)
    assert values[0][0] == pytest.approx(lines[0]["loss"], rel=1e-5)
    assert values[0][-1] == pytest.approx(lines[0]["grad_norm"], rel=1e-4)
    assert [value[0] for value in values] == pytest.approx([line["loss"] for line in lines], rel=1e-4)
    assert values[-1][0] < values[0][0]


def test_both_ways_read_the_same_tokens(run_of: Any) -> None:
    from benchmarks import published
    from benchmarks.speed.students import rows_of
    from cotdistill import methods
    from cotdistill.data.batches import Collator
    from cotdistill.data.prepared import Prepared

    run = run_of("dss")
    prepared = Prepared(run.prepared)
    data = published.tokenise(rows_of(prepared, "train"), prepared.tokenizer(), "dss")
    collator = Collator(prepared, "train", "gold", 1024, 256)
    rows = list(range(8))
    theirs = published.TwoTaskCollator(prepared.tokenizer())([data[row] for row in rows])
    for task, name in zip(methods.build("dss").tasks, ("pred", "expl"), strict=True):
        batch = collator.batch(task, rows)
        assert torch.equal(theirs[name]["input_ids"], batch.input_ids)
        assert torch.equal(theirs[name]["labels"], batch.labels)
        assert torch.equal(theirs[name]["attention_mask"], batch.attention_mask)


@pytest.mark.slow
def test_both_ways_answer_alike(run_of: Any, tmp_path: Path) -> None:
    from benchmarks import published
    from benchmarks.speed.students import rows_of
    from benchmarks.speed.ways import Ours

    ours = Ours(run_of("dss", steps=1))
    generator, prepared = ours.trainer.generator, ours.trainer.generator.prepared
    tokenizer = prepared.tokenizer()
    data = published.tokenise(rows_of(prepared, "test"), tokenizer, "dss")
    trainer = published.trainer(ours.model, tokenizer, data, "dss", tmp_path, batch=8, steps=1)
    theirs = trainer.predict(data, max_new_tokens=14, num_beams=1, do_sample=False).predictions
    texts = [text.strip() for text in tokenizer.batch_decode(theirs, skip_special_tokens=True)]
    assert [answer.prediction for answer in generator.answers(ours.model, "test")] == texts


@pytest.mark.slow
@torch.no_grad()
def test_published_option_scores_are_those_of_one_pass_an_option(run_of: Any, tmp_path: Path) -> None:
    from benchmarks import published
    from benchmarks.speed.students import rows_of
    from benchmarks.speed.ways import Ours

    ours = Ours(run_of("finetune", steps=1))
    prepared = ours.trainer.generator.prepared
    tokenizer, texts = prepared.tokenizer(), rows_of(prepared, "test")
    data = published.tokenise(texts, tokenizer, "finetune")
    trainer = published.trainer(ours.model, tokenizer, data, "finetune", tmp_path, batch=8, steps=1)
    options = [["red", "dark blue", "two or three"][: row % 4] for row in range(len(texts["input"]))]
    found = published.option_scores(trainer, data, options, tokenizer, batch=3)
    assert [len(scores) for scores in found] == [len(row) for row in options]
    for text, row, scores in zip(texts["input"], options, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        for option, score in zip(row, scores, strict=True):
            labels = torch.tensor([tokenizer(option)["input_ids"]])
            loss = ours.model(input_ids=ids, labels=labels).loss
            assert score == pytest.approx(-float(loss) * labels.shape[1], rel=1e-4)

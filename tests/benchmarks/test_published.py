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
@pytest.mark.parametrize("engine", ["packed", "reference"])
@pytest.mark.parametrize("method", ["finetune", "dss", "mi-released", "mi-paper"])
def test_twenty_steps_of_ours_follow_the_published_trainer(
    run_of: Any, tmp_path: Path, method: str, engine: str
) -> None:
    from benchmarks.speed.ways import Ours, published_trainer

    run = run_of(method, batch_size=13, steps=20)
    ours = Ours(run, engine)
    order = [int(row) for number in range(1, 21) for row in ours.trainer.order.batch(number)]
    theirs = published_trainer(run, ours.prepared, tmp_path / "published", order, 20, log=True)
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
        ids, mask, labels = batch.pad()
        assert torch.equal(theirs[name]["input_ids"], ids)
        assert torch.equal(theirs[name]["labels"], labels)
        assert torch.equal(theirs[name]["attention_mask"], mask)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["packed", "reference"])
def test_both_ways_answer_alike(run_of: Any, tmp_path: Path, engine: str) -> None:
    from benchmarks import published
    from benchmarks.speed.students import rows_of
    from benchmarks.speed.ways import Ours, make_generator

    run = run_of("dss", steps=1)
    ours = Ours(run, engine)
    generator, prepared = make_generator(run, ours.prepared, engine), ours.prepared
    tokenizer = prepared.tokenizer()
    data = published.tokenise(rows_of(prepared, "test"), tokenizer, "dss")
    trainer = published.trainer(ours.model, tokenizer, data, "dss", tmp_path, batch=8, steps=1)
    theirs = trainer.predict(data, max_new_tokens=14, num_beams=1, do_sample=False).predictions
    texts = [text.strip() for text in tokenizer.batch_decode(theirs, skip_special_tokens=True)]
    assert [answer.prediction for answer in generator.answer(ours.model, "test")] == texts


@pytest.mark.slow
@torch.no_grad()
def test_published_option_scores_are_those_of_one_pass_an_option(run_of: Any, tmp_path: Path) -> None:
    from benchmarks import published
    from benchmarks.speed.students import rows_of
    from benchmarks.speed.ways import Ours

    ours = Ours(run_of("finetune", steps=1), "packed")
    prepared = ours.prepared
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


def test_batches_grouped_by_length_are_all_over_a_megabatch(run_of: Any, monkeypatch: Any) -> None:
    from benchmarks.speed import ways
    from cotdistill.data.prepared import Prepared

    monkeypatch.setattr(ways, "MEGABATCH", 5)
    run = run_of("dss", batch_size=4)
    prepared = Prepared(run.prepared)
    rows = ways.rows_of_steps(run, prepared, 0, 5)
    found = ways.grouped_by_length(run, prepared, 5)
    assert sorted(row for batch in found for row in batch) == sorted(rows), "each batch of it once"
    lengths = [ways.Measure(run, prepared).lengths(batch)[0][0] for batch in found]
    ranges = sorted((min(batch), max(batch)) for batch in lengths)
    assert all(a[1] <= b[0] for a, b in zip(ranges, ranges[1:], strict=False)), "sorted by length, then cut"
    assert sum(lengths[0]) == sorted(map(sum, lengths))[2], "the first is of middling length"

"""The order of examples is a pure function; tensors hold the very tokens of prefix, input and target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill import methods
from cotdistill.data.batches import IGNORED, Batch, Collator, Order
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import choose_subset
from cotdistill.methods import METHODS, Task
from cotdistill.methods.single_task import BRIDGE
from cotdistill.training.devices import get_world_size
from cotdistill.training.trainer import Trainer

sizes = st.integers(1, 60)
batch_sizes = st.integers(1, 70)
seeds = st.integers(0, 5)


@settings(deadline=None)
@given(sizes, batch_sizes, seeds)
def test_the_batches_of_an_epoch_tile_a_permutation(n: int, size: int, seed: int):
    rows = [3 * row + 1 for row in range(n)]
    order = Order(rows, size, "cqa", seed)
    for epoch in range(3):
        steps = range(epoch * order.per_epoch + 1, (epoch + 1) * order.per_epoch + 1)
        batches = [order.batch(step) for step in steps]
        assert sorted(np.concatenate(batches).tolist()) == rows
        assert all(len(batch) == size for batch in batches[:-1])
        assert 1 <= len(batches[-1]) <= size
        assert order.epoch(steps[-1]) == epoch + 1


@settings(deadline=None)
@given(sizes, batch_sizes, seeds, st.lists(st.integers(1, 200), min_size=1, max_size=10))
def test_a_step_sees_the_same_rows_whatever_was_asked_before(n: int, size: int, seed: int, steps: list[int]):
    used = Order(range(n), size, "cqa", seed)
    for step in steps:
        assert used.batch(step).tolist() == Order(range(n), size, "cqa", seed).batch(step).tolist()


def test_order_depends_on_dataset_seed_and_epoch():
    def first(dataset: str = "cqa", seed: int = 0, step: int = 1) -> list[int]:
        return Order(range(50), 50, dataset, seed).batch(step).tolist()

    orders = [first(), first(dataset="svamp"), first(seed=1), first(step=2)]
    assert len({tuple(order) for order in orders}) == 4
    # the same on every machine and with every version: a change would break every published number
    assert Order(range(8), 8, "cqa", 0).batch(1).tolist() == [3, 4, 0, 5, 1, 6, 2, 7]


@settings(deadline=None)
@given(st.integers(1, 300), seeds, st.lists(st.sampled_from([0.01, 0.07, 0.1, 0.25, 0.5, 1.0]), min_size=2))
def test_fractions_are_nested(n: int, seed: int, fractions: list[float]):
    parts = [set(choose_subset(n, fraction, seed, "cqa")) for fraction in sorted(fractions)]
    assert all(small <= large for small, large in zip(parts, parts[1:], strict=False))
    assert all(parts)


def test_methods_and_labels_of_a_seed_see_the_same_examples(tiny: Any, tmp_path: Any):
    assert get_world_size() == 1
    seen = []
    for method in METHODS.names():
        for labels in ("gold", "teacher"):
            run = tiny.run(tmp_path, method, labels=labels, fraction=0.5)
            order = Trainer(run, torch.device("cpu"), "packed").order
            seen.append([order.batch(step).tolist() for step in range(1, 8)])
    assert all(batches == seen[0] for batches in seen)
    rows = {row for batch in seen[0] for row in batch}
    assert rows == set(choose_subset(26, 0.5, 0, "colours")) and len(rows) == 13


@pytest.fixture(scope="module")
def prepared(tiny: Any) -> Prepared:
    return Prepared(tiny.prepared)


def collator(prepared: Prepared, labels: str = "gold", inputs: int = 64, targets: int = 200) -> Collator:
    return Collator(prepared, "train", labels, inputs, targets)


@pytest.mark.parametrize("name", METHODS.names())
def test_tensors_are_the_ids_of_the_joined_text(name: str, prepared: Prepared):
    table, tokenizer = prepared.table("train").to_pylist(), prepared.tokenizer()
    rows = [4, 1, 9]
    for task in methods.build(name).tasks:
        batch = collator(prepared).batch(task, rows)
        input_ids, attention_mask, padded = batch.pad()
        for number, row in enumerate(rows):
            text = task.prefix + table[row]["input"]
            target = " ".join(table[row].get(part, part) for part in task.target)
            ids = input_ids[number][attention_mask[number].bool()].tolist()
            labels = padded[number]
            assert ids == batch.inputs[number].tolist()
            assert labels[labels != IGNORED].tolist() == batch.targets[number].tolist()
            assert ids == tokenizer(text)["input_ids"]
            assert labels[labels != IGNORED].tolist() == tokenizer(target)["input_ids"]


def test_padding_stands_on_the_right_and_is_masked(prepared: Prepared):
    task = methods.build("dss").tasks[1]
    batch = collator(prepared).batch(task, [0, 1, 2, 3])
    input_ids, attention_mask, padded = batch.pad()
    lengths = attention_mask.sum(1).tolist()
    assert max(lengths) == input_ids.shape[1] and len(set(lengths)) > 1, "rows differ in length"
    for ids, mask, labels, length in zip(
        input_ids, attention_mask, padded, lengths, strict=True
    ):
        assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
        assert ids[length - 1] == 1 and (ids[length:] == 0).all()
        real = int((labels != IGNORED).sum())
        assert labels[real - 1] == 1 and (labels[real:] == IGNORED).all()
    assert batch.tokens == int((padded >= 0).sum())
    assert input_ids.dtype == padded.dtype == torch.int64


def test_rows_of_a_batch_keep_its_padded_lengths(prepared: Prepared):
    batch = collator(prepared).batch(methods.build("dss").tasks[1], [0, 1, 2, 3])
    part = batch.take(range(1, 3))
    assert len(part) == 2
    assert [ids.tolist() for ids in part.inputs] == [ids.tolist() for ids in batch.inputs[1:3]]
    assert torch.equal(part.pad()[2], batch.pad()[2][1:3]), "targets are padded as those of the whole batch"


ids = st.lists(st.integers(1, 99), min_size=1, max_size=9)
examples = st.lists(st.tuples(ids, ids), min_size=1, max_size=6)


@settings(deadline=None)
@given(examples, st.data(), st.integers(0, 5), st.integers(0, 3))
def test_parts_are_padded_as_loops_do_it(rows: list[Any], data: Any, pad_token: int, more: int):
    inputs, targets = ([torch.tensor(row[side]) for row in rows] for side in (0, 1))
    longest = max(len(target) for _, target in rows) + more
    batch = Batch(inputs, targets, longest)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    for part, taken in ((batch, range(len(rows))), (batch.take(chosen), chosen), (batch.take(range(1)), [0])):
        expected = [rows[row] for row in taken]
        assert len(part) == len(expected) and part.longest_target == longest
        assert [row.tolist() for row in part.inputs] == [own for own, _ in expected]
        assert [row.tolist() for row in part.targets] == [own for _, own in expected]
        assert part.tokens == sum(len(own) for _, own in expected)
        width = max(len(own) for own, _ in expected)
        input_ids, attention_mask, labels = part.pad(pad_token)
        assert input_ids.dtype == attention_mask.dtype == labels.dtype == torch.int64
        assert input_ids.tolist() == [own + [pad_token] * (width - len(own)) for own, _ in expected]
        assert attention_mask.tolist() == [[1] * len(own) + [0] * (width - len(own)) for own, _ in expected]
        assert labels.tolist() == [own + [IGNORED] * (longest - len(own)) for _, own in expected]


def test_teacher_labels_are_the_targets_where_they_are_asked_for(prepared: Prepared):
    table, tokenizer = prepared.table("train").to_pylist(), prepared.tokenizer()
    wrong = [row for row, example in enumerate(table) if example["label"] != example["teacher_label"]]
    assert len(wrong) >= 3
    for name in ("finetune", "dss", "single_task"):
        task = methods.build(name).tasks[0]
        for row in wrong:
            texts = {}
            for labels in ("gold", "teacher"):
                ids = collator(prepared, labels).target_ids(task, row)
                texts[labels] = tokenizer.decode(ids, skip_special_tokens=True)
            assert texts["gold"].endswith(table[row]["label"])
            assert texts["teacher"].endswith(table[row]["teacher_label"])


@pytest.mark.parametrize("longest", [30, 48, 200])
def test_a_long_rationale_is_cut_before_its_label(prepared: Prepared, longest: int):
    task, tokenizer = methods.build("single_task").tasks[0], prepared.tokenizer()
    table = prepared.table("train").to_pylist()
    cut = 0
    for row, example in enumerate(table):
        ids = collator(prepared, targets=longest).target_ids(task, row).tolist()
        end = tokenizer(f"{BRIDGE} {example['label']}")["input_ids"]
        assert ids[-len(end) :] == end and len(ids) <= longest
        whole = tokenizer(example["rationale"], add_special_tokens=False)["input_ids"]
        assert ids[: -len(end)] == whole[: longest - len(end)]
        cut += len(whole) + len(end) > longest
    assert (cut > 0) == (longest < 200)


def test_what_leaves_no_room_is_cut_to_the_limit(prepared: Prepared):
    task = methods.build("single_task").tasks[0]
    for longest in (2, 3, 5):
        ids = collator(prepared, targets=longest).target_ids(task, 0).tolist()
        assert len(ids) == longest and ids[-1] == 1


@pytest.mark.parametrize("longest", [8, 10, 64])
def test_long_inputs_are_cut_and_keep_prefix_and_end(prepared: Prepared, longest: int):
    task, tokenizer = methods.build("dss").tasks[1], prepared.tokenizer()
    for row, example in enumerate(prepared.table("train").to_pylist()):
        whole = tokenizer(task.prefix + example["input"])["input_ids"]
        ids = collator(prepared, inputs=longest).input_ids(task, row).tolist()
        assert ids == (whole if len(whole) <= longest else [*whole[: longest - 1], 1])


def test_an_empty_rationale_trains_to_write_nothing(prepared: Prepared):
    made = collator(prepared)
    empty = Task("rationale", "explain: ", ("rationale",))
    made.fields = {**made.fields, "rationale": [np.asarray([], dtype=np.int32)]}  # type: ignore[dict-item]
    assert made.target_ids(empty, 0).tolist() == [1]

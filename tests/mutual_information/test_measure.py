"""Representations against one example at a time, and what is measured of which run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cotdistill import methods
from cotdistill.common import stopping
from cotdistill.data.batches import Collator
from cotdistill.data.prepared import Prepared, Ragged
from cotdistill.evaluation.information import measure as measuring
from cotdistill.evaluation.information.estimators import ESTIMATORS
from cotdistill.evaluation.information.measure import DIMENSIONS, Meter, measure_test, represent
from cotdistill.students.packed.learning import Learner

ROWS = [0, 3, 5, 8, 11, 14, 17]
DSS = methods.build("dss")


def alone(model: Any, collator: Collator, task: Any, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean state and pooled distribution of one example without padding, by their definitions."""
    input_ids, _, labels = collator.batch(task, [row]).pad()
    ids = torch.cat([torch.tensor([[0]]), labels[:, :-1]], 1)  # T5 starts with the padding token
    with torch.no_grad():
        states = model.encoder(input_ids=input_ids).last_hidden_state
        decoded = model.decoder(input_ids=ids, encoder_hidden_states=states).last_hidden_state[0]
        logits = model(input_ids=input_ids, decoder_input_ids=ids).logits[0]
    most = logits.softmax(-1).amax(0)
    return decoded.mean(0), most / most.sum()


def test_representations_are_those_of_each_example_alone(model: Any, collator: Collator):
    found = represent(model, DSS, collator, ROWS, "packed", batch_size=3)
    model.eval()
    projection = measuring._make_projection(model.config.vocab_size)
    for side, task in enumerate((DSS.rationale_task, DSS.label_task)):
        expected = [alone(model, collator, task, row) for row in ROWS]
        decoder, output = (found[name][side] for name in ("decoder", "output"))
        assert decoder.shape == (7, 16) and output.shape == (7, DIMENSIONS)
        states, distributions = (torch.stack(each) for each in zip(*expected, strict=True))
        torch.testing.assert_close(decoder, states, atol=1e-5, rtol=1e-4)
        roots = distributions.sqrt()
        torch.testing.assert_close(output, roots @ projection, atol=1e-5, rtol=1e-4)


def test_the_projection_keeps_distances():
    draws = torch.rand(20, 1000, generator=torch.Generator().manual_seed(1)) ** 20
    roots = (draws / draws.sum(1, keepdim=True)).sqrt()
    before, after = (torch.pdist(x) for x in (roots, roots @ measuring._make_projection(1000)))
    assert (after / before).mean().item() == pytest.approx(1, abs=0.05)
    assert (after / before).std().item() < 0.15


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_no_trace(model: Any, collator: Collator, training: bool):
    model.train(training)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    first = represent(model, DSS, collator, ROWS, "packed")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training == training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    again = represent(model, DSS, collator, ROWS, "packed")
    for name, pair in first.items():
        assert all(torch.equal(x, y) and not x.requires_grad for x, y in zip(pair, again[name], strict=True))


def test_few_examples_are_held_at_once(model: Any, collator: Collator, monkeypatch: Any):
    sizes, original = [], Learner.observe

    def observe(self: Learner, batch: Any, needs: Any) -> Any:
        sizes.append(len(batch))
        return original(self, batch, needs)

    monkeypatch.setattr(Learner, "observe", observe)
    represent(model, DSS, collator, ROWS, "packed", batch_size=3)
    assert sizes == [3, 3, 1] * 2


@pytest.mark.parametrize("method", ["finetune", "single_task"])
def test_a_method_without_both_tasks_is_not_measured(
    method: str, model: Any, collator: Collator, tiny: Any, tmp_path: Path
):
    with pytest.raises(ValueError, match="label and a rationale task"):
        represent(model, methods.build(method), collator, ROWS, "packed")
    assert measure_test(
        model, tiny.run(tmp_path, method), Prepared(tiny.prepared), methods.build(method), "packed"
    ) == {}


def test_asked_to_stop_it_stops_with_the_model_in_its_mode(model: Any, collator: Collator, monkeypatch: Any):
    def check() -> None:
        raise stopping.Preempted

    monkeypatch.setattr(stopping, "check", check)
    model.train()
    with pytest.raises(stopping.Preempted):
        represent(model, DSS, collator, ROWS, "packed")
    assert model.training


def test_too_few_examples_and_a_setting_of_0_measure_nothing(model: Any, tiny: Any, tmp_path: Path):
    prepared = Prepared(tiny.prepared)
    assert measure_test(model, tiny.run(tmp_path, "dss"), prepared, DSS, "packed") == {}
    off = tiny.run(tmp_path, "dss", evaluation={"mutual_information": 0})
    assert measure_test(model, off, prepared, DSS, "packed") == {}
    meter = Meter(off, prepared, DSS, "valid", 256, "packed")
    assert meter.make_history_values(model) == {
        f"mi/{name}/{each}": None for name in ("decoder", "output") for each in ("infonce", "gaussian")
    }


def test_what_is_measured_at_the_end(model: Any, tiny: Any, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(measuring, "LEAST", 8)
    found = measure_test(model, tiny.run(tmp_path, "dss"), Prepared(tiny.prepared), DSS, "packed")
    assert set(found) == {"decoder", "output"}
    for of in found.values():
        assert set(of) == set(ESTIMATORS) == {"infonce", "gaussian"}
        for name, values in of.items():
            keys = {"value", "low", "high", "n", "bound"} | ({"ceiling"} if name == "infonce" else set())
            assert set(values) == keys and values["n"] == 8


def test_every_run_of_a_dataset_is_measured_on_the_same_examples_those_with_a_rationale(
    tiny: Any, tmp_path: Path, monkeypatch: Any
):
    prepared = Prepared(tiny.prepared)
    original = Prepared.ragged
    meters = [
        Meter(tiny.run(tmp_path, name, seed=seed), prepared, methods.build(name), "train", 12, "packed")
        for name, seed in (("dss", 0), ("mi", 3))
    ]
    assert meters[0].rows == meters[1].rows and len(set(meters[0].rows)) == 12
    silent = set(meters[0].rows[:5])

    def without(self: Prepared, split: str, column: str) -> Any:
        found = original(self, split, column)
        if column != "rationale":
            return found
        kept = [[] if row in silent else found[row].tolist() for row in range(len(found))]
        return Ragged(np.asarray([token for row in kept for token in row]), np.cumsum([0, *map(len, kept)]))

    monkeypatch.setattr(Prepared, "ragged", without)
    rows = Meter(tiny.run(tmp_path, "dss"), prepared, DSS, "train", 100, "packed").rows
    assert sorted(rows) == sorted(set(range(26)) - silent)

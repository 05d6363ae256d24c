"""Representations against one example at a time, and what is measured of which run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cotdistill import methods, students
from cotdistill.common import stopping
from cotdistill.common.errors import UserError
from cotdistill.data.batches import Collator
from cotdistill.data.prepared import Prepared, Ragged
from cotdistill.evaluation.predictability import measure as measuring
from cotdistill.evaluation.predictability import states as of_states
from cotdistill.evaluation.predictability.controls import shuffle_within
from cotdistill.evaluation.predictability.critic import find_partners
from cotdistill.evaluation.predictability.measure import Meter, measure_test
from cotdistill.evaluation.predictability.states import DIMENSIONS, represent, write_targets
from cotdistill.students.packed.learning import Learner

ROWS = [0, 3, 5, 8, 11, 14, 17]
DSS = methods.build("dss")
QUICK: dict[str, Any] = {"batch_size": 64, "max_target_tokens": 12}
FEW = "8 examples of {} have a rationale, fewer than the 256 of evaluation.predictability"


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
    projection = of_states._make_projection(model.config.vocab_size)
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
    before, after = (torch.pdist(x) for x in (roots, roots @ of_states._make_projection(1000)))
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
    assert (
        measure_test(
            model, tiny.run(tmp_path, method), Prepared(tiny.prepared), methods.build(method), "packed"
        )
        == {}
    )


def test_asked_to_stop_it_stops_with_the_model_in_its_mode(model: Any, collator: Collator, monkeypatch: Any):
    def check() -> None:
        raise stopping.Preempted

    monkeypatch.setattr(stopping, "check", check)
    model.train()
    with pytest.raises(stopping.Preempted):
        represent(model, DSS, collator, ROWS, "packed", check=check)
    with pytest.raises(stopping.Preempted):
        write_targets(model, [(DSS.tasks[0], 5)], collator, ROWS, "packed", "fp32", 3)
    assert model.training


def test_targets_may_be_what_the_student_wrote(model: Any, collator: Collator):
    """Free-running states of what happens to be the given target are the teacher-forced ones."""
    tasks = [(DSS.rationale_task, 7), (DSS.label_task, 3)]
    written = write_targets(model, tasks, collator, ROWS, "packed", "fp32", 3)
    for task, longest in tasks:
        assert len(written[task.name]) == len(ROWS)
        assert all(
            len(ids) == longest or (len(ids) < longest and ids[-1] == collator.end)
            for ids in written[task.name]
        )
    given = {task.name: collator.batch(task, ROWS).targets for task, _ in tasks}
    forced, free, own = (
        represent(model, DSS, collator, ROWS, "packed", written=each) for each in (None, given, written)
    )
    for name in ("decoder", "output"):
        assert all(torch.equal(a, b) for a, b in zip(forced[name], free[name], strict=True))
        assert not torch.equal(forced[name][0], own[name][0])


@pytest.fixture(scope="module")
def many(make_tiny: Any) -> Any:
    """The tiny experiment with 256 examples to test, which have 3 labels, and 8 to validate."""

    def cut(made: list[Any]) -> dict[str, list[Any]]:
        more = [
            {**row, "id": f"{row['id']}-{n}", "input": f"{row['input']} {n} times?", "group": row["id"]}
            for n in range(7) for row in made
        ]  # fmt: skip
        return {"train": made[:26], "valid": made[26:34], "test": more[:270]}

    return make_tiny("many", cut)


def load(run: Any, many: Any) -> torch.nn.Module:
    return students.load(run.student, Prepared(many.prepared).manifest, run.repetition)


def test_what_is_measured_at_the_end(many: Any, tmp_path: Path):
    run = many.run(tmp_path, "dss", evaluation={"free_running": True}, **QUICK)
    model = load(run, many)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    found = measure_test(model, run, Prepared(many.prepared), DSS, "packed")
    assert found["n"] == 256 and found["candidates"] == 64
    assert found["reasons"] == {"over training": FEW.format("valid")}  # fmt: skip
    for part in (found, found["free_running"]):
        assert part["moved"] > 0.9
        for space in ("decoder", "output"):
            values = part[space]
            assert set(values) == {"share", "retrieval", "untrained", "same_label", "shuffled", "excess",
                                   "excess_retrieval"}  # fmt: skip
            for key, excess in (("share", "excess"), ("retrieval", "excess_retrieval")):
                larger = max(values["untrained"][key], values["same_label"][key])
                assert values[excess] == pytest.approx(values[key] - larger)
            assert abs(values["shuffled"]["share"]) < 0.05
    off = many.run(tmp_path, "dss", **QUICK)
    assert "free_running" not in measure_test(model, off, Prepared(many.prepared), DSS, "packed")
    assert off.hash == run.hash, "nothing of training depends on it"


def test_controls_are_of_the_same_examples_and_critics_alike(many: Any, tmp_path: Path):
    """Each number again by hand, from the parts."""
    run = many.run(tmp_path, "dss", **QUICK)
    prepared = Prepared(many.prepared)
    found = measure_test(load(run, many), run, prepared, DSS, "packed")
    meter = Meter(run, prepared, DSS, "test", "packed")
    z, v = meter.represent(load(run, many))["decoder"]
    table = prepared.table("test").to_pylist()
    labels = [table[row]["label"] for row in meter.rows]
    same, _ = shuffle_within(labels, meter.units, meter.seed)
    assert all(labels[row] == labels[other] for row, other in enumerate(same.tolist()))
    for control, other in (("untrained", v), ("same_label", v[same])):
        by_hand = find_partners(z, other, meter.halves, meter.seed)
        assert found["decoder"][control]["share"] == pytest.approx(by_hand.share, abs=1e-9)
    own = found["decoder"]
    assert own["share"] == own["untrained"]["share"], "this student is an untrained one"
    assert own["excess"] <= 0


def test_a_split_that_is_too_small_tells_why(model: Any, tiny: Any, tmp_path: Path):
    prepared = Prepared(tiny.prepared)
    found = measure_test(model, tiny.run(tmp_path, "dss"), prepared, DSS, "packed")
    assert found == {"reasons": {"test": FEW.format("test"), "over training": FEW.format("valid")}}
    off = tiny.run(tmp_path, "dss", evaluation={"predictability": 0})
    assert measure_test(model, off, prepared, DSS, "packed") == {}


def test_labels_that_few_share_are_no_control(many: Any, tmp_path: Path, monkeypatch: Any):
    run, prepared = many.run(tmp_path, "dss", **QUICK), Prepared(many.prepared)
    monkeypatch.setattr(measuring, "LEAST_MOVED", 1.1)
    found = measure_test(load(run, many), run, prepared, DSS, "packed")
    assert found["decoder"]["same_label"] is None
    assert found["decoder"]["excess"] == found["decoder"]["share"] - found["decoder"]["untrained"]["share"]
    assert "the excess is over the untrained student alone" in found["reasons"]["same_label"]


def test_without_its_initial_weights_a_student_has_no_excess(many: Any, tmp_path: Path, monkeypatch: Any):
    run, prepared = many.run(tmp_path, "dss", **QUICK), Prepared(many.prepared)
    model = load(run, many)

    def refuse(*arguments: Any) -> Any:
        raise UserError("the checkpoint is gone")

    monkeypatch.setattr(measuring.students, "load", refuse)
    found = measure_test(model, run, prepared, DSS, "packed")
    assert found["reasons"]["untrained"] == "the checkpoint is gone"
    assert found["decoder"]["excess"] is None and found["decoder"]["untrained"] is None
    assert found["decoder"]["share"] is not None, "what needs no initial weights is there"


def test_examples_of_one_input_or_group_are_in_one_half(many: Any, tmp_path: Path, monkeypatch: Any):
    run, prepared = many.run(tmp_path, "dss", **QUICK), Prepared(many.prepared)
    names = [row["input"].split("?")[0] for row in prepared.table("test").to_pylist()]
    original = Meter._read_column

    def read(self: Meter, name: str) -> list[str]:
        return [names[row] for row in self.rows] if name == "group" else original(self, name)

    monkeypatch.setattr(Meter, "_read_column", read)
    meter = Meter(run, prepared, DSS, "test", "packed")
    groups = [{names[meter.rows[place]] for place in half.tolist()} for half in meter.halves]
    assert groups[0] and groups[1] and not groups[0] & groups[1]
    monkeypatch.setattr(Meter, "_read_column", lambda self, name: ["one"] * len(self.rows))
    assert "share an input or a group" in Meter(run, prepared, DSS, "test", "packed").absence


def test_every_run_of_a_dataset_is_measured_on_the_same_examples_those_with_a_rationale(
    many: Any, tmp_path: Path, monkeypatch: Any
):
    prepared = Prepared(many.prepared)
    original = Prepared.ragged
    meters = [
        Meter(many.run(tmp_path, name, seed=seed), prepared, methods.build(name), "test", "packed")
        for name, seed in (("dss", 0), ("mi", 3))
    ]
    assert meters[0].rows == meters[1].rows and len(set(meters[0].rows)) == 256
    silent = set(meters[0].rows[:20])

    def without(self: Prepared, split: str, column: str) -> Any:
        found = original(self, split, column)
        if column != "rationale":
            return found
        kept = [[] if row in silent else found[row].tolist() for row in range(len(found))]
        return Ragged(np.asarray([token for row in kept for token in row]), np.cumsum([0, *map(len, kept)]))

    monkeypatch.setattr(Prepared, "ragged", without)
    meter = Meter(many.run(tmp_path, "dss", **QUICK), prepared, DSS, "test", "packed")
    assert sorted(meter.rows) == sorted(set(range(270)) - silent)
    assert meter.absence.startswith("250 examples of test have a rationale, fewer than the 256")

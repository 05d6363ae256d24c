"""Both engines behind the students' interface, held to transformers' plain passes and to each other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill import methods
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.train import train
from cotdistill.runs.grid import Run
from cotdistill.students import engines
from cotdistill.students.engines import ENGINES, make_learner
from cotdistill.students.interface import Needs, Whole
from cotdistill.students.reference.passes import cut_by_padding
from tests.methods import plain
from tests.methods.test_step import VARIANTS, Sure, batches, build, student
from tests.students.engines import (
    KINDS,
    OTHERS,
    assert_near,
    compute,
    each_engine,
    find_end,
    generate,
    log_likelihood,
    make_inputs,
    make_other,
    make_targets,
    score,
    write,
)
from tests.training.test_resume import assert_same, stop_at


@pytest.mark.parametrize(("kind", "tied"), KINDS)
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_terms_and_gradients_are_those_of_plain_passes(
    name: str, options: dict[str, Any], kind: str, tied: bool, cut: bool
):
    model, method = student(kind, tied), build(name, options)
    given_ = batches(method, size=12)
    values, gradients = plain.gradients(model, method, given_)
    if options == {"beta": 0}:
        del values["mutual_information"]  # logged without the padding that would change training
    found = {engine: compute(engine, model, method, given_) for engine in ENGINES}
    for terms, own in found.values():
        assert {key: terms[key] for key in values} == pytest.approx(values, rel=1e-5)
        assert_near(own, gradients)
    assert found["packed"][0] == pytest.approx(found["reference"][0], rel=1e-5)
    assert_near(found["packed"][1], found["reference"][1])


@each_engine
@pytest.mark.parametrize("name", ["dss", "mi"])
def test_parts_of_a_batch_add_up_to_it(engine: str, name: str):
    model, method = student(), build(name, {})
    given_ = batches(method, size=12)
    values, gradients = compute(engine, model, method, given_)
    whole = Whole(12, {task: batch.tokens for task, batch in given_.items()})
    model.zero_grad()
    learner, sums = make_learner(engine, model), dict.fromkeys(values, 0.0)
    for rows in (range(5), range(5, 12)):
        part = {task: batch.take(rows) for task, batch in given_.items()}
        for key, value in learner.add_gradients(part, method, 1, whole).items():
            sums[key] += value.item()
    assert sums == pytest.approx(values, rel=1e-5)
    assert_near(plain.grads(model, method), gradients)


@each_engine
def test_a_method_may_read_all_logits(engine: str, cut: bool):
    model, method = student(), Sure(methods.dss.Settings())
    given_ = batches(method, size=9)
    values, gradients = plain.gradients(model, method, given_)
    found, own = compute(engine, model, method, given_)
    assert found == pytest.approx(values, rel=1e-5)
    assert_near(own, gradients)


@each_engine
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_observed_is_a_plain_pass(engine: str, tied: bool, padding: bool, cut: bool):
    model = student(tied=tied, dropout=0.5)
    batch = batches(methods.build("dss"), size=7)["rationale"]
    learner = make_learner(engine, model)
    state = torch.get_rng_state()
    for pooling in ("max", "mean"):
        needs = Needs(hidden=True, logits=True, pooling=pooling, padding=padding)
        parts = list(learner.observe(batch, needs))
        assert len(parts) == (7 if cut else 1) and sum(part.share for part in parts) == pytest.approx(1)
        assert model.training and torch.equal(torch.get_rng_state(), state)
        model.eval()
        ids, mask, labels = batch.pad()
        with torch.no_grad():
            found = model(
                input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True, use_cache=False
            )
        model.train()
        assert sum(part.cross_entropy.item() for part in parts) == pytest.approx(float(found.loss), rel=1e-5)
        real, row = labels >= 0, 0
        pooled = plain.pool(found.logits, None if padding else real, pooling)
        for part in parts:
            assert part.hidden is not None and part.logits is not None and part.pooled is not None
            assert part.logits.grad_fn is None and part.hidden.dtype == torch.float32
            count, length = part.mask.shape
            own = slice(row, row + count), slice(length)
            assert torch.equal(part.mask, real[own]) and not real[row : row + count, length:].any()
            counted = torch.ones_like(part.mask) if padding else part.mask
            for ours, theirs in ((part.hidden, found.decoder_hidden_states[-1]), (part.logits, found.logits)):
                torch.testing.assert_close(ours, theirs[own] * counted[..., None], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(part.pooled, pooled[row : row + count], rtol=1e-4, atol=1e-6)
            row += count
        assert row == 7


@each_engine
def test_what_is_not_needed_is_not_given(engine: str):
    batch = batches(methods.build("dss"), size=3)["label"]
    (output,) = make_learner(engine, student()).observe(batch, Needs())
    assert output.hidden is output.logits is output.pooled is None


@each_engine
def test_bf16_stays_near_fp32(engine: str):
    model, method = student(tied=False), build("mi", {"variant": "paper"})
    given_ = batches(method)
    exact, gradients = plain.gradients(model, method, given_)
    model.zero_grad()
    found = make_learner(engine, model, "bf16").add_gradients(given_, method, 1)
    low = {key: value.item() for key, value in found.items()}
    assert low == pytest.approx(exact, rel=0.02) and low != pytest.approx(exact, rel=1e-6)
    own = plain.grads(model, method)
    assert all(value.dtype == torch.float32 for value in [*found.values(), *own.values()])
    ours, theirs = (torch.cat([value.flatten() for value in each.values()]) for each in (own, gradients))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


@each_engine
def test_dropout_is_a_function_of_the_seed_and_leaves_the_random_state(engine: str):
    model, method = student(dropout=0.1), build("dss", {})
    given_ = batches(method)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    learner = make_learner(engine, model)
    losses = [learner.add_gradients(given_, method, seed)["total"].item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    torch.manual_seed(8)
    assert learner.add_gradients(given_, method, 1)["total"].item() == losses[0]
    torch.manual_seed(7)
    learner.add_gradients(given_, method, 3)
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    exact = learner.add_gradients(given_, method, 3)["total"].item()
    assert exact == pytest.approx(plain.gradients(model, method, given_)[0]["total"], rel=1e-5)


@each_engine
@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
def test_dropout_moves_the_loss_as_transformers_does(engine: str, kind: str):
    model, method = student(kind, dropout=0.3), build("dss", {})
    given_ = batches(method, size=8)
    learner = make_learner(engine, model)
    ours = np.array([learner.add_gradients(given_, method, seed)["total"].item() for seed in range(100)])
    torch.manual_seed(1)
    with torch.no_grad():
        theirs = np.array([
            sum(term.weight * term.value.item() for term in plain.terms(model, method, given_).values())
            for _ in range(100)
        ])
    error = (ours.var() / 100 + theirs.var() / 100) ** 0.5
    assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert 0.7 < ours.std() / theirs.std() < 1.4


@pytest.mark.parametrize("kind", OTHERS)
def test_the_reference_engine_is_right_for_other_families(kind: str, cut: bool):
    model = make_other(kind)
    for name, options in (("mi", {"variant": "paper"}), ("gaussian", {}), ("mi", {})):
        method = build(name, options)
        given_ = batches(method, size=9)
        values, gradients = plain.gradients(model, method, given_)
        found, own = compute("reference", model, method, given_)
        assert found == pytest.approx(values, rel=1e-5)
        for key, value in gradients.items():
            assert (own[key] - value).norm() <= 2e-5 * value.norm() + 1e-7, key
    end = find_end(write("reference", model, end=1))
    for ids, (tokens, log) in zip(make_inputs(), write("reference", model, end), strict=True):
        assert tokens == generate(model, ids, 20, end)
        assert log == pytest.approx(log_likelihood(model, ids, tokens), rel=1e-4)
    found_scores = score("reference", model, make_targets())
    for ids, own, scores in zip(make_inputs(), make_targets(), found_scores, strict=True):
        assert scores == pytest.approx([log_likelihood(model, ids, target) for target in own], rel=1e-4)


def test_dropout_of_other_families_is_a_function_of_the_seed():
    model, method = make_other("bart", dropout=0.2), build("dss", {})
    given_, learner = batches(method), make_learner("reference", model)
    state = torch.get_rng_state()
    losses = [learner.add_gradients(given_, method, seed)["total"].item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2] and torch.equal(torch.get_rng_state(), state)


@settings(deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(st.tuples(*[st.integers(1, 9)] * width), min_size=1, max_size=12)
    ),
    st.integers(0, 60),
)
def test_groups_are_whole_in_order_and_bounded(lengths: list[tuple[int, ...]], most: int):
    found = cut_by_padding(lengths, most)
    assert [row for part in found for row in range(len(lengths))[part]] == list(range(len(lengths)))
    sizes = [sum(map(max, zip(*lengths[part], strict=True))) * len(lengths[part]) for part in found]
    assert all(size <= most or len(lengths[part]) == 1 for part, size in zip(found, sizes, strict=True))
    for first, second in zip(found, found[1:], strict=False):
        joined = lengths[first.start : second.start + 1]
        assert sum(map(max, zip(*joined, strict=True))) * len(joined) > most, "no group could be longer"
    assert cut_by_padding(lengths, None) == [slice(0, len(lengths))]


@pytest.mark.parametrize(
    ("setting", "device", "chosen"),
    [("auto", "cpu", "packed"), ("auto", "cuda", "reference"), ("packed", "cuda", "packed"),
     ("reference", "cpu", "reference")],
)  # fmt: skip
def test_an_engine_is_chosen_by_setting_and_device(setting: str, device: str, chosen: str):
    assert engines.choose(setting, device) == chosen
    assert engines.list_possible(setting, device) == (chosen,)


def test_a_device_that_is_not_known_yet_allows_both_engines():
    assert engines.list_possible("auto", "auto") == ("packed", "reference")
    assert engines.list_possible("reference", "auto") == ("reference",)


def test_engines_have_the_parts_that_are_named():
    for engine in ENGINES:
        for part, cls in (("learning", "Learner"), ("writing", "Writer"), ("scoring", "Scorer")):
            assert hasattr(engines._part(engine, part), cls)


@pytest.fixture(params=ENGINES)
def started(request: Any, tiny: Any, tmp_path: Path) -> Iterator[tuple[str, Callable[[str], Run]]]:
    more = {"evaluation": {"rationales": True}, "engine": request.param}
    yield request.param, lambda name: tiny.run(tmp_path / name, "mi", **more)


def test_a_run_trains_to_its_end_and_resumes_to_the_same_bits(
    started: Any, monkeypatch: Any, weights: Any, history: Any
):
    engine, make = started
    whole, run = make("whole"), make("stopped")
    train(whole)
    stop_at(monkeypatch, run, 9)
    train(run)
    assert_same(run, whole, weights, history)
    for name in ("config.json", "environment.json"):
        assert json.loads((run.folder / name).read_text())["engine"] == engine
    metrics = evaluate(run)
    assert metrics.strict.test_n == 8
    losses = [line["loss/total"] for line in history(run) if "loss/total" in line]
    assert losses[-1] < losses[0] and all(map(math.isfinite, losses))


def test_both_engines_train_alike(tiny: Any, tmp_path: Path, history: Any):
    """Without dropout, whose masks each engine draws in its own way."""
    found = []
    for engine in ENGINES:
        run = tiny.run(tmp_path / engine, "mi", engine=engine, scratch={"dropout": 0})
        train(run)
        found.append([line["loss/total"] for line in history(run) if "loss/total" in line])
    assert found[0] == pytest.approx(found[1], rel=1e-3)

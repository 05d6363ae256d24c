"""Generation and target scores of both engines, held to transformers' and to each other."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from cotdistill.data.batches import Batch
from cotdistill.students.engines import ENGINES, make_scorer, make_writer
from tests.methods import plain
from tests.methods.test_step import build, student
from tests.students.engines import (
    KINDS,
    assert_near,
    compute,
    each_engine,
    find_end,
    generate,
    log_likelihood,
    make_inputs,
    make_speaker,
    make_targets,
    score,
    write,
)


@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_greedy_generation_is_that_of_transformers(kind: str, tied: bool):
    model = make_speaker(kind, tied)
    end = find_end(write("reference", model, end=1))
    state = torch.get_rng_state()
    found = {engine: write(engine, model, end) for engine in ENGINES}
    assert model.training and torch.equal(torch.get_rng_state(), state)
    for each in found.values():
        for ids, (tokens, log) in zip(make_inputs(), each, strict=True):
            assert tokens == generate(model, ids, 20, end)
            assert log == pytest.approx(log_likelihood(model, ids, tokens), rel=1e-4)
    assert len({len(tokens) for tokens, _ in found["packed"]}) > 2, "they end at different steps"
    for (tokens, log), (others, other) in zip(found["packed"], found["reference"], strict=True):
        assert tokens == others and log == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
def test_long_answers_are_those_of_transformers(kind: str):
    model, inputs = make_speaker(kind), make_inputs()[:3]
    for engine in ENGINES:
        writer = make_writer(engine, model)
        for ids, (tokens, _) in zip(inputs, writer.write(writer.read(inputs), 90, end=1), strict=True):
            assert tokens == generate(model, ids, 90, end=1)
            assert len(tokens) > 64, "the attention's bias grows twice"


@each_engine
@pytest.mark.parametrize("longest", [100_000, 10**9, 2**40])
def test_room_is_taken_for_what_is_written_not_for_the_limit(engine: str, longest: int):
    model = make_speaker()
    found = write("reference", model, end=1)
    end = find_end(found)
    ending = [ids for ids, (tokens, _) in zip(make_inputs(), found, strict=True) if end in tokens]
    writer = make_writer(engine, model)
    written = [tokens for tokens, _ in writer.write(writer.read(ending), longest, end)]
    assert written == [generate(model, ids, 20, end) for ids in ending] and len(ending) > 2


@each_engine
def test_a_checkpoints_generation_settings_change_nothing(engine: str):
    model = make_speaker()
    expected = write(engine, model, end=1)
    own = GenerationConfig(
        num_beams=4, do_sample=True, no_repeat_ngram_size=1, min_new_tokens=19, forced_bos_token_id=5,
        forced_eos_token_id=7, max_length=3, repetition_penalty=3.0, suppress_tokens=[expected[0][0][0]],
    )  # fmt: skip
    model.generation_config = own
    assert write(engine, model, end=1) == expected
    assert model.generation_config is own


@each_engine
@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_log_likelihoods_are_those_of_a_pass_for_each_target(engine: str, kind: str, tied: bool, cut: bool):
    model, targets = make_speaker(kind, tied), make_targets()
    found = score(engine, model, targets)
    for ids, own, scores in zip(make_inputs(), targets, found, strict=True):
        assert scores == pytest.approx([log_likelihood(model, ids, target) for target in own], rel=1e-4)
    assert score(engine, model, [[] for _ in targets]) == [[] for _ in targets]


@each_engine
def test_one_reading_serves_to_write_and_to_score(engine: str):
    model = make_speaker()
    writer = make_writer(engine, model)
    read = writer.read(make_inputs())
    scorer = make_scorer(engine, writer)
    first = scorer.log_likelihoods(read, make_targets())
    written = writer.write(read, 20, 1)
    scores = scorer.log_likelihoods(read, [[tokens] for tokens, _ in written])
    assert [log for _, log in written] == pytest.approx([own for (own,) in scores], rel=1e-4)
    assert scorer.log_likelihoods(read, make_targets()) == first and writer.write(read, 20, 1) == written


@each_engine
def test_writing_and_scoring_in_bf16_are_near(engine: str):
    model, targets = student(tied=False), make_targets()
    model.start_token = 0
    exact, near = (score(engine, model, targets, precision) for precision in ("fp32", "bf16"))
    assert exact != near
    for first, second in zip(exact, near, strict=True):
        assert second == pytest.approx(first, rel=0.02)
    for ids, (tokens, log) in zip(make_inputs(), write(engine, model, 1, "bf16"), strict=True):
        assert log == pytest.approx(log_likelihood(model, ids, tokens), rel=0.02)


def test_batches_of_one_length_are_read_too():
    """Without padding anywhere."""
    model, method = student(), build("mi", {})
    ids = torch.arange(3, 9)
    given_ = {task.name: Batch([ids, ids + 3], [ids[:4], ids[1:5]], 4) for task in method.tasks}
    values, gradients = plain.gradients(model, method, given_)
    for engine in ENGINES:
        found, own = compute(engine, model, method, given_)
        assert found == pytest.approx(values, rel=1e-5)
        assert_near(own, gradients)

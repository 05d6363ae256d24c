"""Predictability measured in training, and methods with modules of their own: exact after a stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from cotdistill import methods
from cotdistill.common import stopping
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation.predictability.measure import Meter
from cotdistill.jobs.train import train
from cotdistill.runs.grid import Run
from cotdistill.training.trainer import Trainer

Read = Callable[..., Any]
KEYS = {
    f"valid/predictability/{name}/{each}"
    for name in ("decoder", "output")
    for each in ("share", "retrieval", "excess")
}
QUICK: dict[str, Any] = {"batch_size": 32, "evaluation": {"batch_size": 256, "rationales": False}}


@pytest.fixture(scope="module")
def wide(make_tiny: Any) -> Any:
    """The tiny experiment with 48 examples to validate."""

    def cut(made: list[Any]) -> dict[str, list[Any]]:
        more = [{**row, "id": row["id"] + "-more", "input": row["input"] + " now?"} for row in made]
        return {"train": made[:26], "valid": [*made[26:], *more[:32]], "test": more[34:]}

    return make_tiny("wide", cut)


@pytest.fixture(scope="module")
def many(make_tiny: Any) -> Any:
    """The tiny experiment with 260 examples to validate, enough to measure predictability on."""

    def cut(made: list[Any]) -> dict[str, list[Any]]:
        more = [
            {**row, "id": f"{row['id']}-{n}", "input": f"{row['input']} {n}?"}
            for n in range(7)
            for row in made
        ]
        return {"train": made[:26], "valid": more[:260], "test": made[26:]}

    return make_tiny("many-to-validate", cut)


@pytest.fixture(scope="module")
def unstopped(wide: Any, once: Any) -> Callable[[str], Run]:
    """The run of a method, never stopped."""

    def of(method: str) -> Run:
        return wide.run(once(f"wide-{method}", lambda folder: train(wide.run(folder, method))), method)

    return of


def measured(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What validations tell of predictability."""
    return [
        {key: value for key, value in line.items() if "predictability" in key}
        for line in lines
        if "valid/accuracy" in line
    ]


@pytest.fixture(scope="module")
def whole(many: Any, once: Any) -> Run:
    """A run that was measured in training, never stopped."""
    return many.run(once("many-dss", lambda folder: train(many.run(folder, "dss", **QUICK))), "dss", **QUICK)


def test_every_validation_tells_the_predictability(whole: Run, history: Read):
    found = measured(history(whole))
    assert len(found) == 3
    for values in found:
        assert set(values) == KEYS and all(isinstance(value, float) for value in values.values())
    assert found[0] != found[-1]


def test_measuring_changes_nothing_of_the_training(
    many: Any, whole: Run, tmp_path: Path, weights: Read, history: Read
):
    none = {**QUICK["evaluation"], "predictability": 0}
    off = many.run(tmp_path, "dss", **{**QUICK, "evaluation": none})
    assert off.hash != whole.hash
    train(off)
    assert weights(off) == weights(whole)
    lines = [{k: v for k, v in line.items() if k not in KEYS} for line in history(whole)]
    assert history(off) == lines


def test_a_method_without_both_tasks_and_too_few_examples_tell_nothing(
    trained: Callable[[str], Run], history: Read
):
    assert measured(history(trained("finetune"))) == [{}] * 3
    assert measured(history(trained("dss"))) == [{}] * 3


def test_the_untrained_student_is_measured_before_the_first_step_though_asked_to_stop(
    many: Any, whole: Run, monkeypatch: Any
):
    """In a group of processes, one that left here would have the others wait for it."""
    run = whole
    prepared, method = Prepared(many.prepared), methods.build("dss")
    meter = Meter(run, prepared, method, "valid", "packed")
    monkeypatch.setattr(stopping, "_asked", signal.SIGTERM)
    meter.measure_untrained(torch.device("cpu"))
    assert meter.untrained is not None and set(meter.untrained) == {"decoder", "output"}
    with pytest.raises(stopping.Preempted):
        meter.represent(meter.load_untrained(torch.device("cpu")))


def test_a_stop_while_measuring_does_the_validation_again(
    many: Any, whole: Run, tmp_path: Path, monkeypatch: Any, weights: Read, history: Read
):
    run, calls, original = many.run(tmp_path, "dss", **QUICK), [], Meter.make_history_values

    def line(self: Meter, model: Any) -> dict[str, Any]:
        calls.append(1)
        found = original(self, model)
        if len(calls) == 2:
            raise stopping.Preempted
        return found

    monkeypatch.setattr(Meter, "make_history_values", line)
    with pytest.raises(stopping.Preempted, match="saved at step 8"):
        train(run)
    train(run)
    assert len(calls) == 4, "of step 8 twice"
    assert history(run) == history(whole)
    for which in ("model", "model_last"):
        assert weights(run, which) == weights(whole, which)


class Stopped(Exception):
    """The interruption of these tests."""


@pytest.mark.parametrize("method", ["infonce", "gaussian"])
def test_what_a_method_learns_is_saved_restored_and_thrown_away(
    wide: Any, unstopped: Callable[[str], Run], tmp_path: Path, monkeypatch: Any, weights: Read,
    history: Read, method: str,
):  # fmt: skip
    run, original = wide.run(tmp_path, method), Trainer.take_step

    def step(self: Trainer, number: int) -> torch.Tensor:
        if number == 7:
            raise Stopped
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", step)
        with pytest.raises(Stopped):
            train(run)
    fresh = Trainer(run, torch.device("cpu"), "packed")
    initial = {name: p.detach().clone() for name, p in fresh.method.learned.named_parameters()}
    for kind, suffixes in (("model", [""]), ("optimizer", ["|exp_avg", "|exp_avg_sq", "|step"])):
        with safe_open(run.state / "step-5" / f"{kind}.safetensors", "pt") as file:
            own = {key for key in file.keys() if key.startswith("method.")}  # noqa: SIM118 not a dict
            assert own == {f"method.{name}{suffix}" for name in initial for suffix in suffixes}
            if kind == "model":
                saved = {name: file.get_tensor(f"method.{name}") for name in initial}
    assert any(not torch.equal(saved[name], initial[name]) for name in initial), "it has learned"
    train(run)
    assert history(run) == history(unstopped(method))
    for which in ("model", "model_last"):
        assert weights(run, which) == weights(unstopped(method), which)
        with safe_open(run.folder / which / "model.safetensors", "pt") as file:
            assert not [key for key in file.keys() if "method" in key or "student" in key]  # noqa: SIM118


def test_the_seed_decides_what_a_method_starts_with(wide: Any, tmp_path: Path):
    runs = [wide.run(tmp_path, "gaussian", seed=seed) for seed in (0, 0, 1)]
    trainers = [Trainer(run, torch.device("cpu"), "packed") for run in runs]
    first, again, other = (trainer.own_parameters for trainer in trainers)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(first, other, strict=True))


def test_the_gradient_of_what_a_method_learns_does_not_scale_the_students(
    wide: Any, tmp_path: Path, monkeypatch: Any
):
    norms = []
    for factor in (1.0, 1e4):
        trainer = Trainer(wide.run(tmp_path, "gaussian", clip_norm=0.01), torch.device("cpu"), "packed")
        trainer.model.train()
        for parameter in trainer.own_parameters:
            parameter.register_hook(lambda gradient, factor=factor: gradient * factor)
        values = trainer.take_step(1)
        own = torch.cat([p.grad.flatten() for p in trainer.own_parameters])
        assert own.norm().item() <= 0.01 * 1.001
        norms.append((values[-1].item(), torch.cat([p.grad.flatten() for p in trainer.parameters])))
    assert norms[0][0] == norms[1][0]
    assert torch.equal(norms[0][1], norms[1][1])


@pytest.mark.slow
def test_killed_between_states_a_method_that_learns_ends_in_the_same_bits(
    forks: Any, wide: Any, tmp_path: Path, weights: Read, history: Read
):
    more = {"steps": 40, "eval_every": 10, "checkpoint_every": 4}
    config, run = wide.config_file(tmp_path / "killed", "infonce", **more)
    whole = wide.run(tmp_path / "whole", "infonce", **more)
    log, marker = tmp_path / "log", run.folder / "training.json"
    for sent, state in ((signal.SIGKILL, "step-8"), (signal.SIGTERM, "step-20")):
        pid = forks("train", "--config", config, "--run", run.id, log=log)
        until = time.monotonic() + 120
        while not (run.state / state).exists() and not marker.exists() and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(pid, sent)
        assert forks.wait(pid) in (-sent, 75, 0), log.read_text()
    assert forks.wait(forks("train", "--config", config, "--run", run.id, log=log)) == 0, log.read_text()
    assert "going on from step" in log.read_text()
    train(whole)
    assert history(run) == history(whole)
    for which in ("model", "model_last"):
        assert weights(run, which) == weights(whole, which)

"""A run that is stopped, however rudely, ends as if it had never been stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill.common.errors import UserError
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.train import train
from cotdistill.runs.grid import Run
from cotdistill.runs.history import History
from cotdistill.runs.state import Progress, State
from cotdistill.training.trainer import Trainer

Read = Callable[..., Any]
LONGER = {"steps": 40, "eval_every": 5, "checkpoint_every": 4}


class Stopped(Exception):
    """The interruption of these tests."""


def stop_at(monkeypatch: pytest.MonkeyPatch, run: Run, last: int) -> None:
    """Train `run` until an exception in step `last`."""
    original = Trainer.take_step

    def step(self: Trainer, number: int) -> torch.Tensor:
        if number == last:
            raise Stopped
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", step)
        with pytest.raises(Stopped):
            train(run)


def saved(run: Run) -> list[str]:
    return sorted(path.name for path in run.state.glob("step-*"))


def assert_same(run: Run, other: Run, weights: Read, history: Read) -> None:
    for which in ("model", "model_last"):
        assert weights(run, which) == weights(other, which)
    assert history(run) == history(other)
    for each in (run, other):
        evaluate(each)
    files = [each.folder / "predictions.jsonl" for each in (run, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not run.state.exists()


@pytest.fixture
def whole(trained: Callable[[str], Run]) -> Run:
    """The same run, never stopped."""
    return trained("mi")


@pytest.fixture
def run(tiny: Any, tmp_path: Path) -> Run:
    return tiny.run(tmp_path, "mi", evaluation={"rationales": True})


# 3: before any state; 7: open log window in the state; 9: lines after the state; 12: the last step
@pytest.mark.parametrize(
    ("last", "states"), [(3, []), (7, ["step-5"]), (9, ["step-5"]), (12, ["step-10", "step-5"])]
)
def test_an_interrupted_run_ends_the_same(
    monkeypatch: Any, run: Run, whole: Run, weights: Read, history: Read, capsys: Any,
    last: int, states: list[str],
):  # fmt: skip
    stop_at(monkeypatch, run, last)
    assert saved(run) == states
    assert not (run.folder / "model").exists() and not (run.folder / "training.json").exists()
    steps = []
    original = Trainer.take_step
    monkeypatch.setattr(
        Trainer, "take_step", lambda self, step: (steps.append(step), original(self, step))[1]
    )
    train(run)
    first = int(max(states, key=lambda name: int(name[5:])).removeprefix("step-")) if states else 0
    assert steps == list(range(first + 1, 13)), "what was saved is not trained again"
    assert (f"going on from step {first}" in capsys.readouterr().out) == bool(states)
    assert_same(run, whole, weights, history)


def test_a_run_may_be_interrupted_again_and_again(
    monkeypatch: Any, run: Run, whole: Run, weights: Read, history: Read
):
    for last in (2, 6, 8, 11, 11):
        stop_at(monkeypatch, run, last)
    train(run)
    assert_same(run, whole, weights, history)


@pytest.mark.parametrize(
    "torn", ["model.safetensors", "optimizer.safetensors", "window.safetensors", "state.json"]
)
def test_a_corrupt_newest_state_falls_back_to_the_one_before(
    monkeypatch: Any, run: Run, whole: Run, weights: Read, history: Read, torn: str, capsys: Any
):
    stop_at(monkeypatch, run, 12)
    file = run.state / "step-10" / torn
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    train(run)
    out = capsys.readouterr().out
    assert "step-10 is corrupt" in out and "going on from step 5" in out
    assert_same(run, whole, weights, history)


def test_with_all_states_corrupt_it_starts_over(
    monkeypatch: Any, run: Run, whole: Run, weights: Read, history: Read, capsys: Any
):
    stop_at(monkeypatch, run, 12)
    for name in saved(run):
        shutil.rmtree(run.state / name)
        (run.state / name).mkdir()
    train(run)
    assert "going on" not in capsys.readouterr().out
    assert_same(run, whole, weights, history)


def test_the_state_of_another_config_is_refused(monkeypatch: Any, run: Run):
    stop_at(monkeypatch, run, 7)
    file = run.state / "step-5" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hash": "0123456789abcdef", "seal": None}))
    with pytest.raises(UserError, match="state of config 0123456789abcdef, expected") as caught:
        train(run)
    assert "\n" not in str(caught.value) and run.hash in str(caught.value)


def test_two_configs_of_one_run_keep_their_states_apart(
    monkeypatch: Any, tiny: Any, run: Run, whole: Run, tmp_path: Path, weights: Read, history: Read
):
    other = tiny.run(tmp_path, "mi", learning_rate=0.02)
    assert other.folder == run.folder and other.hash != run.hash
    stop_at(monkeypatch, run, 7)
    stop_at(monkeypatch, other, 7)
    train(run)
    assert_same(run, whole, weights, history)
    assert saved(other), "evaluating one config leaves the other's state"


@pytest.mark.slow
def test_a_killed_process_is_resumed(
    tiny: Any, tmp_path: Path, start: Callable[..., Any], weights: Read, history: Read, capsys: Any
):
    config, run = tiny.config_file(tmp_path / "killed", "dss", **LONGER)
    whole = tiny.run(tmp_path / "whole", "dss", **LONGER)
    process = start("-m", "cotdistill", "train", "--config", config, "--run", run.id)
    until = time.monotonic() + 120
    while not saved(run) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    assert saved(run) and not (run.folder / "training.json").exists()
    train(run)
    assert "going on from step" in capsys.readouterr().out
    train(whole)
    assert_same(run, whole, weights, history)


def test_early_stopping_counts_across_an_interruption(
    monkeypatch: Any, tiny: Any, tmp_path: Path, history: Read
):
    # the rate is too small to change an answer: no evaluation after the first is better
    more = {"steps": 40, "patience": 3, "learning_rate": 1e-9, "eval_every": 4, "checkpoint_every": 2}
    run = tiny.run(tmp_path, "finetune", **more)
    stop_at(monkeypatch, run, 11)
    train(run)
    checked = [line["step"] for line in history(run) if "valid/accuracy" in line]
    assert checked == [4, 8, 12, 16], "the best, and three that are not better"
    marker = json.loads((run.folder / "training.json").read_text())
    assert marker["steps"] == 16 and marker["best_step"] == 4


def test_states_keep_every_bit_and_only_the_newest_two(tmp_path: Path):
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    state = State(tmp_path, "abc")
    for step in (9, 10, 100):
        model(torch.rand(4, 3)).sum().backward()
        optimizer.step()
        state.save(Progress(step, 2, 0.5, 1, 3.25), model, optimizer, torch.full((2, 3), step / 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-100"]
    fresh = torch.nn.Linear(3, 2)
    other = torch.optim.AdamW(fresh.parameters(), lr=0.1)
    progress, window = state.restore(fresh, other)
    assert progress == Progress(100, 2, 0.5, 1, 3.25)
    assert torch.equal(window, torch.full((2, 3), 100 / 3))
    for first, second in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(first, second)
        for key, value in optimizer.state[first].items():
            assert torch.equal(value, other.state[second][key])
    assert State(tmp_path / "none", "abc").restore(fresh, other) is None


def test_history_rewinds_past_a_torn_line(tmp_path: Path):
    history = History(tmp_path / "history.jsonl")
    history.rewind(0)
    for step in (1, 2, 2, 3):
        history.write({"step": step, "value": float("nan")})
    with open(history.path, "a", encoding="utf-8") as handle:
        handle.write('{"step": 2, "val')
    history.rewind(3)
    history.write({"step": 3})
    lines = [json.loads(line) for line in history.path.read_text().splitlines()]
    assert lines == [{"step": step, "value": None} for step in (1, 2, 2)] + [{"step": 3}]

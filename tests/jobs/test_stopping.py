"""Asked to stop, a job saves, says so, and exits with a code of its own; started again it goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from cotdistill.runs.grid import Run

RARE = {"checkpoint_every": 1000}
"""no state but those that a signal asks for (the key is not part of a run's identity)"""

# the process sends itself a signal when it calls the function for the n-th time
SIGNAL = """
import os, signal
import {module} as module
calm, left = module.{name}, [{count}]
def sent(*arguments, **more):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.{sent})
    return calm(*arguments, **more)
module.{name} = sent
"""
# each generated batch is noted in a file
BATCHES = """
from cotdistill.inference.generate import Generator
silent = Generator._generate_batch
def noted(self, *arguments):
    with open({notes!r}, "a") as handle:
        handle.write(".")
    return silent(self, *arguments)
Generator._generate_batch = noted
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_the_step_that_it_came_in(
    bench: Any, whole: Run, numbers: Callable[[Run], Any], sent: signal.Signals
) -> None:
    at = bench(**RARE)
    pid = at.start(pause=0.3)
    at.until(lambda: len(at.steps()) >= 6)
    os.kill(pid, sent)
    assert at.end(pid) == 75, at.said()
    last, _ = at.steps()[-1]
    assert last <= 8, "the step of the signal, and no more"
    assert at.saved() == [last]
    # whatever of the step is noted before its signal, at most the next one is made
    line = at.said().splitlines()[-1]
    assert line == f"stopped: {at.run.id}: stopped by {sent.name}, saved at step {last}"
    assert "Traceback" not in at.said() and not (at.run.folder / "failure.txt").exists()
    assert not (at.run.folder / "training.json").exists()
    assert at.end(at.start("again")) == 0, at.said("again")
    assert f"going on from step {last}\n" in at.said("again")
    assert [step for step, _ in at.steps()] == list(range(1, 13)), "each step was made once"
    assert numbers(at.run) == numbers(whole)


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait(bench: Any, whole: Run, numbers: Callable[[Run], Any]) -> None:
    at = bench(checkpoint_every=2)
    pid = at.start(pause=0.2)
    at.until(at.saved)
    endless = at.start("endless", pause=600)  # waits for the other, then for its first step to end
    os.kill(pid, signal.SIGKILL)
    at.end(pid)
    before = len(at.steps())
    at.until(lambda: len(at.steps()) > before)
    os.kill(endless, signal.SIGINT)
    time.sleep(0.5)  # two signals at once are one
    os.kill(endless, signal.SIGINT)
    assert at.end(endless) == 130
    assert at.said("endless").splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in at.said("endless")
    assert at.end(at.start("again")) == 0, at.said("again")
    assert numbers(at.run) == numbers(whole)


@pytest.mark.slow
def test_a_signal_during_validation_keeps_the_step_to_be_validated(
    bench: Any, whole: Run, numbers: Callable[[Run], Any]
) -> None:
    at = bench(**RARE)
    module = "cotdistill.inference.generate"
    first = SIGNAL.format(module=module, name="Generator.answer", count=2, sent="SIGTERM")
    assert at.end(at.start(first=first, pause=0)) == 75, at.said()
    assert at.said().endswith("stopped by SIGTERM, saved at step 8\n") and at.saved() == [8]
    history = (at.run.folder / "state" / at.run.hash / "history.jsonl").read_text()
    assert history.count("valid/accuracy") == 1, "the second validation is still to come"
    assert at.end(at.start("again", pause=0)) == 0, at.said("again")
    assert numbers(at.run) == numbers(whole)


@pytest.mark.slow
def test_a_signal_while_answering_test_keeps_the_batches(
    bench: Any, tiny: Any, numbers: Callable[[Run], Any]
) -> None:
    from cotdistill.jobs.train import train

    more = {"evaluation": {"rationales": True, "batch_size": 2}, "steps": 4}
    at = bench("dss", **more)
    notes = at.root / "batches.txt"
    count = BATCHES.format(notes=str(notes))
    # the fourth batch of twelve: two checkpoints' answers and one's rationales, eight examples in twos
    first = SIGNAL.format(module="cotdistill.runs.journal", name="Journal.put", count=4, sent="SIGUSR1")
    assert at.end(at.start(first=first + count, pause=0)) == 75, at.said()
    assert "trained; answering test stopped by SIGUSR1, the finished batches are kept" in at.said()
    assert (at.run.folder / "training.json").exists()
    validation, done = 4, 4
    assert len(notes.read_text()) == validation + done
    notes.write_text("")
    assert at.end(at.start("again", first=count, pause=0)) == 0, at.said("again")
    assert at.evaluate("then") == 0, at.said("then")
    same = (at.run.folder / "model" / "model.safetensors").read_bytes() == (
        at.run.folder / "model_last" / "model.safetensors"
    ).read_bytes()
    assert len(notes.read_text()) == (8 if same else 12) - done, "what was generated is not generated again"
    assert not list((at.run.folder / "answers").glob("*.partial"))
    whole = tiny.run(at.root / "whole", "dss", **more)
    train(whole)
    assert numbers(at.run) == numbers(whole)

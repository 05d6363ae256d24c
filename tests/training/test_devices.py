"""Devices and processes: the GPU lock, the missing GPU, and two processes that share a batch."""

from __future__ import annotations

import contextlib
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import cotdistill
from cotdistill.common.errors import UserError
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.train import train
from cotdistill.training import devices

HOLD = """
import sys, time
from pathlib import Path
from cotdistill.training.devices import claim
with claim(1, ["a", "b"], Path(sys.argv[1]), wait=0.01) as (number,):
    print(number, flush=True)
    sys.stdin.read()
"""


FAULTS = """
import resource, sys, torch
from cotdistill.training import devices
if sys.argv[1] == "kept":
    devices.reuse_memory()
def touch():
    torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
found = [touch() for _ in range(40)]  # the first ones find the places of small things that stay
print(found[-1] - found[19])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_memory_that_is_freed_is_used_again():
    faults = {}
    for how in ("given back", "kept"):
        command = [sys.executable, "-c", FAULTS, how]
        faults[how] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    pages = 2**26 // os.sysconf("SC_PAGE_SIZE")  # of one tensor; 20 are counted
    assert faults["kept"] < 5 * pages
    assert faults["given back"] > 15 * pages or faults["given back"] < pages, "large pages are few"


def test_cuda_without_a_gpu_is_refused(tiny: Any, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="training.device is 'cuda' but no GPU is visible") as caught:
        train(tiny.run(tmp_path, device="cuda"))
    assert "\n" not in str(caught.value)
    assert devices.choose("auto") == devices.choose("cpu") == "cpu"


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: Any):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [devices.choose(wanted) for wanted in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]


def test_claims_are_handed_out_and_given_back(tmp_path: Path):
    names = ["a", "b", "c"]
    with devices.claim(1, names, tmp_path) as first, devices.claim(1, names, tmp_path) as second:
        assert (first, second) == ([0], [1])
    with devices.claim(2, names, tmp_path) as both:
        assert both == [0, 1]
        # numbers are this process's; locks are of the hardware, whatever a process sees of it
        with devices.claim(1, ["b", "c"], tmp_path) as other:
            assert other == [1]
    with pytest.raises(UserError, match="training.gpus is 4, but 3 GPUs are visible"), \
            devices.claim(4, names, tmp_path):  # fmt: skip
        pass


def test_a_claim_waits_for_all_its_gpus_and_holds_none_meanwhile(tmp_path: Path, monkeypatch: Any):
    waits, names = [], ["a", "b"]
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(devices.claim(1, names, tmp_path)) == [0]

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            with devices.claim(1, names, tmp_path) as free:
                assert free == [1], "one that waits for two would keep the other from everybody"
            if len(waits) == 3:
                stack.close()

        monkeypatch.setattr(devices.time, "sleep", sleep)
        with devices.claim(2, names, tmp_path, wait=0.25) as numbers:
            assert numbers == [0, 1]
    assert len(waits) == 3 and all(0.125 <= seconds <= 0.25 for seconds in waits)


def test_children_see_only_what_was_claimed(monkeypatch: Any):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.restrict_visible([1, 3]) == "1,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,5,7")
    assert devices.restrict_visible([0, 2]) == "GPU-a,7"


@pytest.mark.slow
def test_processes_claim_different_gpus_and_a_killed_ones_is_free_again(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(Path(cotdistill.__file__).parents[1])}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment,
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        # the third gets none: it waits until one of the first two is killed
        selector = selectors.DefaultSelector()
        for number, holder in enumerate(holders):
            selector.register(holder.stdout, selectors.EVENT_READ, number)
        held: dict[int, int] = {}
        while len(held) < 2:
            for key, _ in selector.select(timeout=120):
                held[key.data] = int(holders[key.data].stdout.readline())
                selector.unregister(key.fileobj)
        assert sorted(held.values()) == [0, 1]
        victim, waiting = min(held), ({0, 1, 2} - set(held)).pop()
        os.kill(holders[victim].pid, signal.SIGKILL)
        assert int(holders[waiting].stdout.readline()) == held[victim]
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


@pytest.mark.slow
def test_two_processes_give_the_result_of_one_also_when_stopped_between(
    tiny: Any, tmp_path: Path, start: Callable[..., Any], history: Callable[..., Any]
):
    # 26 rows in batches of 5: the last batch of an epoch has 1 example, so one process has none
    more = {"scratch": {"dropout": 0}, "batch_size": 5, "learning_rate": 1e-3, "steps": 40}
    one = tiny.run(tmp_path / "one", "mi", **more)
    config, two = tiny.config_file(tmp_path / "two", "mi", **more, gpus=2)
    train(one)
    command = ("-m", "cotdistill", "train", "--config", config, "--run", two.id)
    process = start(*command)
    while not list(two.state.glob("step-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)  # to the parent alone, which passes it on
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert not (two.folder / "training.json").exists() and not (two.folder / "failure.txt").exists()
    process = start(*command)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "going on from step" in out
    for which in ("model", "model_last"):
        first, second = (load_file(run.folder / which / "model.safetensors") for run in (one, two))
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=0, atol=1e-4)
    lines, others = history(one), history(two)
    assert [line["step"] for line in others] == [line["step"] for line in lines], "one history, not two"
    for line, other in zip(lines, others, strict=True):
        assert set(other) == set(line)
        unknown = {key for key, value in line.items() if value is None}  # `approx` refuses None
        assert unknown == {key for key, value in other.items() if value is None}
        known = set(line) - unknown
        assert {key: other[key] for key in known} == pytest.approx(
            {key: line[key] for key in known}, rel=1e-4, abs=1e-4
        )
    scores = [evaluate(run).strict.model_dump() for run in (two, one)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    assert not (two.folder / "state").exists(), "evaluated, so nothing will be tried again"

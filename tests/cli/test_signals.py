"""What a user's keys and pipes do: Ctrl-C, and a reader that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RUN = "demo/mini/dss/gold/1/1"


def test_ctrl_c_while_training(trained: Path, configure: Callable[..., None]) -> None:
    configure(seeds=[1], training={"steps": 1_000_000, "eval_every": 1_000_000, "checkpoint_every": 1})
    child = subprocess.Popen(
        [sys.executable, "-m", "cotdistill", "train", "--run", RUN],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    state = Path("results/tiny/runs", RUN, "state")
    try:
        while not list(state.glob("*/step-*/state.json")) and child.poll() is None:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 75, err
    assert "Traceback" not in err
    assert f"stopped: {RUN}: stopped by SIGINT, saved at step " in err
    assert list(state.glob("*/step-*/state.json")), "there is a state to go on from"
    assert not [path for path in state.rglob(".*")], "nothing half-written"


def test_ctrl_c_while_starting(work: Path, configure: Callable[..., None]) -> None:
    configure()
    code = (
        "import builtins, sys\n"
        "load = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'torch': raise KeyboardInterrupt\n"
        "    return load(name, *rest)\n"
        "builtins.__import__ = interrupted\n"
        "from cotdistill.cli import main\n"
        "sys.exit(main(['train', '--run', 'demo/mini/dss/gold/1/0']))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "error: interrupted\n")


def test_reader_that_goes_away(work: Path, configure: Callable[..., None]) -> None:
    configure(seeds=list(range(3)))
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-m", "cotdistill", "plan"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert found.stderr == "", "`cotdistill plan | head` is no fault"
    assert found.returncode in (0, 1), "and not the interpreter's own 120"

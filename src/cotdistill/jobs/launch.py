"""Run one job as several processes: torchrun starts one a GPU (or CPU process) and passes on signals."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from cotdistill.common import stopping
from cotdistill.runs import limits
from cotdistill.runs.grid import Run

GRACE = 600
"""seconds that processes have to save their state after a signal; who sent it may be less patient"""


def launch(run: Run) -> int:
    """Run this very command in `training.gpus` processes; returns their exit code.

    Raises Preempted where they stopped because they were asked to, UserError for more processes than cores.
    """
    limits.check_machine(run, run.training.device)
    with contextlib.ExitStack() as stack:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if run.training.device != "cpu":
            environment |= _claim_gpus(run, stack)
        process = subprocess.Popen(_build_command(run), env=environment)
        told = None
        while process.poll() is None:
            time.sleep(0.2)
            if stopping.get_signal() and not told:
                told = stopping.get_signal()
                assert told is not None
                process.send_signal(told)
    if process.returncode:
        stopping.check()
    return process.returncode


def _build_command(run: Run) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    signals = ",".join(number.name for number in stopping.SIGNALS)
    options = [f"--signals-to-handle={signals}", f"--shutdown-timeout={GRACE}"]
    own = [sys.executable, "-m", "cotdistill", *sys.argv[1:]]
    # without "--" torchrun would take our --run for one of its own options
    return [*torchrun, *options, f"--nproc-per-node={run.training.gpus}", "--", *own]


def _claim_gpus(run: Run, stack: contextlib.ExitStack) -> dict[str, str]:
    """Claim as many GPUs as the job needs, all or none, and show the processes only those."""
    from cotdistill.training import devices

    if devices.choose(run.training.device) == "cpu":
        limits.check_machine(run, "cpu")
        return {}
    return {
        "CUDA_VISIBLE_DEVICES": devices.restrict_visible(
            stack.enter_context(devices.claim(run.training.gpus, devices.list_gpus()))
        )
    }

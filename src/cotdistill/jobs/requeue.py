"""Ask Slurm to start this job again: how a run longer than its time limit goes on, segment by segment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

from cotdistill.common import stopping

ANSWER, WAIT = 60, 120
"""seconds to wait for Slurm to agree to start this job again, and then to end it"""


def requeue() -> bool:
    """Requeue the Slurm job that this process is part of. False where there is none, or Slurm refuses.

    A requeued job keeps its id, so Snakemake waits for it and no retry is used up.
    """
    job = os.environ.get("SLURM_JOB_ID")
    scontrol = shutil.which("scontrol")
    if not job or not scontrol:
        return False
    try:
        found = subprocess.run([scontrol, "requeue", job], capture_output=True, text=True, timeout=ANSWER)
        refusal = (found.stderr.strip() or found.stdout.strip()) if found.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        refusal = str(error)
    if refusal is not None:
        print(f"Slurm does not requeue job {job}: {refusal}", flush=True)
        return False
    print(f"Slurm job {job} will be started again, to go on from here", flush=True)
    # to exit now would tell Snakemake that the job failed: wait for Slurm to end it
    end = time.monotonic() + WAIT
    while time.monotonic() < end and stopping.get_signal() != signal.SIGTERM:
        time.sleep(0.2)
    return True

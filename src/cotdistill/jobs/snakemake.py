"""What Snakemake and its Slurm plugin (2.8.0) do not do for jobs that are signalled, or out of sight.

Called when the Snakefile is read: by the Snakemake that submits, and by those inside of a job.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

PLUGIN = "snakemake_executor_plugin_slurm"
Query = Callable[..., Awaitable[tuple[dict[str, str] | None, float | None]]]


def mend() -> None:
    """Mend both, where they apply."""
    if "SLURM_JOB_ID" in os.environ:
        # Slurm sends USR1 to all of a job's processes, and whoever does not know it dies of it: with
        # Snakemake the job would end while training still saves its state. (Children inherit this;
        # training listens to USR1 all the same. The rules' `exec` leaves no shell to die of SIGTERM.)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    plugin: Any = sys.modules.get(PLUGIN)
    if hasattr(plugin, "query_job_status"):
        plugin.query_job_status = patient(plugin.query_job_status)


def patient(query: Query) -> Query:
    """A status query that fails tells nothing of any job.

    The plugin asks a few times more at once, with sacct if the controller does not answer, then forgets
    all running jobs and waits for ever. With an empty answer it keeps them, and asks again later.
    """
    if hasattr(query, "patient"):
        return query

    async def ask(*arguments: Any) -> tuple[dict[str, str], float]:
        found, seconds = await query(*arguments)
        return ({}, 0.0) if found is None or seconds is None else (found, seconds)

    ask.patient = True  # type: ignore[attr-defined]
    return ask

"""What Snakemake and its Slurm plugin (2.8.0) do not do for jobs that are signalled, or out of sight, and for
records that are corrupt.

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


RECORDS = "snakemake.persistence.file"


def mend() -> None:
    """Mend what applies here."""
    if "SLURM_JOB_ID" in os.environ:
        # Slurm sends USR1 to all of a job's processes, and whoever does not know it dies of it: with
        # Snakemake the job would end while training still saves its state. (Children inherit this;
        # training listens to USR1 all the same. The rules' `exec` leaves no shell to die of SIGTERM.)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    plugin: Any = sys.modules.get(PLUGIN)
    if hasattr(plugin, "query_job_status"):
        plugin.query_job_status = patient(plugin.query_job_status)
    records: Any = getattr(sys.modules.get(RECORDS), "FilePersistence", None)
    if hasattr(records, "_read_record"):
        records._read_record = tolerant(records._read_record)


def tolerant(read: Callable[..., Any]) -> Callable[..., Any]:
    """A record that cannot be read is one that is missing: its job is done again, or not.

    Snakemake passes over bad JSON in its records, and ends with a traceback for bytes that are no text.
    """
    if hasattr(read, "tolerant"):
        return read

    def record(persistence: Any, key: str) -> Any:
        try:
            return read(persistence, key)
        except ValueError:  # no text, or JSON of other things than a record's
            return None

    record.tolerant = True  # type: ignore[attr-defined]
    return record


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

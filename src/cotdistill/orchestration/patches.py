"""Patch Snakemake and its Slurm plugin for jobs that are signalled or out of sight, and for corrupt records.

Each patch is for one version, which it was written and tested for; another version is left as it is, with a
warning. Applied when the Snakefile is read: by the Snakemake that submits, and by those inside of a job.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

VERSIONS = {"snakemake": "9.27.1", "snakemake-executor-plugin-slurm": "2.8.0"}
"""the versions that are patched, by distribution"""

PLUGIN, RECORDS = "snakemake_executor_plugin_slurm", "snakemake.persistence.file"
Query = Callable[..., Awaitable[tuple[dict[str, str] | None, float | None]]]


def apply() -> None:
    """Apply what concerns this process; doing it twice changes nothing."""
    if "SLURM_JOB_ID" in os.environ:
        # Slurm sends USR1 to all of a job's processes, and whoever does not know it dies of it: with
        # Snakemake the job would end while training still saves its state. (Children inherit this;
        # training listens to USR1 all the same. The rules' `exec` leaves no shell to die of SIGTERM.)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    plugin: Any = sys.modules.get(PLUGIN)
    if plugin is not None and _is_known("snakemake-executor-plugin-slurm", "silence of Slurm may lose jobs"):
        plugin.query_job_status = bear_silence(plugin.query_job_status)
    records: Any = sys.modules.get(RECORDS)
    if records is not None and _is_known("snakemake", "a corrupt record of a job ends it with a traceback"):
        records.FilePersistence._read_record = bear_corruption(records.FilePersistence._read_record)


def _is_known(distribution: str, risk: str) -> bool:
    """Return whether the installed version is the one that is patched; warn where it is another."""
    found, expected = importlib.metadata.version(distribution), VERSIONS[distribution]
    if found != expected:
        words = f"{distribution} {found} is not patched, as {expected} is: {risk}"
        print(f"warning: {words}", file=sys.stderr, flush=True)
    return found == expected


def bear_corruption(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return `read` with None for a record that cannot be read: its job counts as one without a record.

    Snakemake passes over bad JSON in its records, and ends with a traceback for bytes that are no text.
    """
    if hasattr(read, "patched"):
        return read

    def record(persistence: Any, key: str) -> Any:
        try:
            return read(persistence, key)
        except ValueError:  # no text, or JSON of other things than a record's
            return None

    record.patched = True  # type: ignore[attr-defined]
    return record


def bear_silence(query: Query) -> Query:
    """Return `query` with an empty answer where Slurm gives none: it tells nothing of any job.

    The plugin asks a few times more at once, with sacct if the controller does not answer, then forgets
    all running jobs and waits for ever. With an empty answer it keeps them, and asks again later.
    """
    if hasattr(query, "patched"):
        return query

    async def ask(*arguments: Any) -> tuple[dict[str, str], float]:
        found, seconds = await query(*arguments)
        return ({}, 0.0) if found is None or seconds is None else (found, seconds)

    ask.patched = True  # type: ignore[attr-defined]
    return ask

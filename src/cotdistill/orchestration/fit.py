"""Tell whether the jobs of a grid fit what they ask for, and this machine, before the first one starts."""

from __future__ import annotations

import os
from collections.abc import Callable

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json
from cotdistill.config.models import Experiment
from cotdistill.runs.grid import Run, expand
from cotdistill.runs.limits import check_machine, estimate_mb, find_shortage

PASSES = 100_000
"""over the training rows of a run, beyond which its number of steps is likely a slip: about a hundred times
those of the published numbers on the smallest of the four datasets"""


def check_local(experiment: Experiment) -> None:
    """Raise UserError for a grid that Snakemake would run here although this machine cannot do its jobs.

    Says nothing where a profile of the environment may send them elsewhere.
    """
    if "SNAKEMAKE_PROFILE" not in os.environ:
        for run in _choose_kinds(experiment):
            check_machine(run, run.training.device)


def list_warnings(experiment: Experiment, estimate: Callable[[Run], float | None]) -> list[str]:
    """Return a line for each thing of a (dataset, student) pair's jobs that does not fit.

    estimate: returns the hours of a run, None where they are not known. What this machine lacks is a warning
    alone, as a grid for a cluster is planned on another machine than it runs on.
    """
    lines = []
    for run in _choose_kinds(experiment):
        pair = f"{run.dataset.name} with {run.student.name}"
        time = _compare_time(run, estimate(run))
        found = (_compare_machine(run), _compare_memory(run), time, _compare_rows(run))
        lines += [f"warning: {pair}: {words}" for words in found if words]
    return lines


def _choose_kinds(experiment: Experiment) -> list[Run]:
    """Return a run for each pair of dataset and student, whose jobs ask for the same: that of fewest rows."""
    runs = sorted(expand(experiment), key=lambda run: -run.fraction)
    return list({(run.dataset.name, run.student.name): run for run in runs}.values())


def _compare_machine(run: Run) -> str | None:
    lack = find_shortage(run, run.training.device)
    return f"a job would be refused on this machine: {lack}" if lack else None


def _compare_memory(run: Run) -> str | None:
    """Say where a vocabulary as large as it may become needs more memory than a job asks for."""
    scratch, asked = run.student.scratch, run.student.compute.mem_mb
    most = estimate_mb(run, run.training.device, scratch.vocabulary) if scratch else 0
    if scratch is None or most <= asked:
        return None
    return (
        f"a tokenizer of all {scratch.vocabulary:,} pieces would have the student need {most:,} MB to train, "
        f"'compute.mem_mb' is {asked:,}"
    )


def _compare_time(run: Run, hours: float | None) -> str | None:
    limit = run.student.compute.runtime
    if hours is None or hours * 60 <= limit:
        return None
    return (
        f"a run takes about {hours * 60:.0f} minutes, 'compute.runtime' is {limit:,}: a cluster would stop "
        "it and start it again"
    )


def _compare_rows(run: Run) -> str | None:
    """Say where a batch is all training rows, or the steps pass them very often; nothing before preparing."""
    try:
        rows = int(read_json(run.prepared / "manifest.json")["sizes"]["train"])
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None
    training = run.training
    used = max(1.0, rows * run.fraction)
    if training.batch_size >= 2 * used:
        return f"batches of {training.batch_size:,} ('training.batch_size') hold all {used:,.0f} rows"
    passes = training.steps * training.batch_size / used
    if passes <= PASSES:
        return None
    return f"{training.steps:,} steps pass {used:,.0f} training rows {passes:,.0f} times: is that meant?"

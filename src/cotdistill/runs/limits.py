"""Hold a run's settings against each other, against what its job asks for, and against a machine."""

from __future__ import annotations

from cotdistill.common import machine
from cotdistill.common.errors import UserError
from cotdistill.config import bounds
from cotdistill.config.models import Experiment
from cotdistill.runs.grid import Run
from cotdistill.students.sizes import count_weights

OVERCOMMIT = 8
"""threads a core, above which they only wait for each other; fewer are slow, but give the same numbers"""
WEIGHT_BYTES = 4
"""a weight in float32"""
LIBRARIES_MB = 1_500
"""addresses that torch and transformers take on Linux before there is a student (1,300 MB were too few)"""
READERS_MB = 500
"""the same of Arrow and the tokenizers, which read data (300 MB were too few)"""
COPIES = 4
"""of each weight while it is trained: itself, its gradient, and AdamW's two means"""


def check_grid(experiment: Experiment, where: str) -> None:
    """Raise UserError for a grid of more runs than can be planned, before any is made."""
    axes = ("datasets", "students", "methods", "labels", "fractions", "seeds")
    count = 1
    for axis in axes:
        count *= len(getattr(experiment, axis))
    if count > bounds.RUNS:
        raise UserError(f"{where}: the grid has {count:,} runs (before 'include' and 'exclude'); expected at "
                        f"most {bounds.RUNS:,}: cut it into several experiments")  # fmt: skip


def check_settings(run: Run, where: str) -> None:
    """Raise UserError for settings that contradict each other, after the overrides of dataset and student."""
    training, compute = run.training, run.student.compute
    who = f"{where}: dataset '{run.dataset.name}' with student '{run.student.name}'"
    if training.warmup_steps > training.steps:
        raise UserError(
            f"{who}: 'training.warmup_steps' is {training.warmup_steps:,} of {training.steps:,} steps: the "
            "learning rate would never reach its peak; expected at most 'training.steps'"
        )
    if training.gpus > training.batch_size:  # of more micro-batches than examples some are left out
        raise UserError(
            f"{who}: 'training.gpus' is {training.gpus:,} for batches of {training.batch_size:,} examples: "
            "some processes would have none; expected at most 'training.batch_size'"
        )
    least = estimate_mb(run, training.device, vocabulary=0)
    if least > compute.mem_mb:
        raise UserError(
            f"{who}: the layers alone take {least:,} MB ('training.gpus': {training.gpus:,}), "
            f"'compute.mem_mb' is {compute.mem_mb:,}; expected more memory, or smaller "
            "d_model, d_ff, d_kv, heads or layers"
        )


def estimate_mb(run: Run, device: str, vocabulary: int) -> int:
    """Return the least memory in MB of a job: of a student from scratch, weights and what trains them.

    device: 'cpu'; on any other the optimiser's part is not in the machine's memory. Activations are not
    counted, as they depend on the data, nor a pretrained student, whose size is not in the config: 0 for one.
    """
    if run.student.scratch is None:
        return 0
    copies = COPIES if device == "cpu" else 1
    processes = run.training.gpus
    return count_weights(run.student.scratch, vocabulary) * WEIGHT_BYTES * copies * processes // 2**20


def find_shortage(run: Run, device: str, vocabulary: int = 0) -> str | None:
    """Return in words what a job of this run lacks on this machine; None where it lacks nothing.

    device: 'cpu' or 'cuda', or 'auto' where it is not known yet. vocabulary: its tokens.
    """
    processes, threads = run.training.gpus, run.student.compute.threads
    cores = machine.count_cores()
    if device == "cpu" and processes > cores:
        return f"{processes:,} CPU processes ('training.gpus') on {_name(cores)}; expected at most one a core"
    if processes * threads > OVERCOMMIT * cores:
        return (
            f"{processes * threads:,} threads ('compute.threads' of each process) on {_name(cores)}; "
            f"expected at most {OVERCOMMIT} a core"
        )
    needed, there = estimate_mb(run, device, vocabulary), machine.measure_memory_mb()
    if there is not None and needed > there:
        return (
            f"{needed:,} MB for the student's weights and what trains them, of {there:,} MB that there are; "
            "expected smaller d_model, d_ff, d_kv, heads, layers or vocabulary"
        )
    return None


def check_address_space(least: int = LIBRARIES_MB) -> None:
    """Raise UserError where `ulimit -v` leaves less than `least` MB: libraries would end the process."""
    limit = machine.measure_address_space_mb()
    if limit is not None and limit < least:
        raise UserError(
            f"`ulimit -v` allows {limit:,} MB of addresses; expected at least {least:,} MB, which the "
            "libraries take when they are imported"
        )


def check_machine(run: Run, device: str, vocabulary: int = 0) -> None:
    """Raise UserError for a job that this machine cannot do; see `find_shortage`."""
    if shortage := find_shortage(run, device, vocabulary):
        raise UserError(f"{run.id}: {shortage}")


def _name(cores: int) -> str:
    return f"{cores:,} core{'' if cores == 1 else 's'}"

"""Check that the grid's models and training states fit on the disk of the results folder."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError, list_some
from cotdistill.common.files import read_json
from cotdistill.config.models import StudentEntry
from cotdistill.orchestration.doctor.finding import Finding
from cotdistill.orchestration.doctor.local import find_checkpoint
from cotdistill.orchestration.doctor.site import Site
from cotdistill.runs.folder import CHECKPOINTS
from cotdistill.runs.outputs import KEPT
from cotdistill.students.checkpoint import COPIES
from cotdistill.students.sizes import count_parameters, count_weights
from cotdistill.students.stored import Stored

TIGHT = 0.8
"""part of the free space above which the plan is tight"""
STATES, OF_WEIGHTS = 2, 3
"""a run in training holds two states of weights and two moments"""
RUN = 5_000_000
"""bytes of a run beside its models: tokenizers, predictions, history"""
KNOWN = {"small": 76_961_152, "base": 247_577_856, "large": 783_150_080, "xl": 2_849_757_184}
"""parameters of T5 v1.1 and flan-T5, for students that are not fetched yet"""


def check_disk(site: Site) -> Iterator[Finding]:
    """Compare what the runs that are still to do will write with what is free."""
    folder = Path(site.experiment.results).absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    weights = {entry.name: _estimate_weights(entry) for entry in site.experiment.students}
    open_runs = [run for run in site.grid.runs.values() if not (run.files.training).is_file()]
    # until it is evaluated a run has both checkpoints, whatever `training.keep` says
    sizes = [(weights[run.student.name] or 0, len(KEPT[run.training.keep])) for run in open_runs]
    jobs = _count_jobs(site)
    most = STATES * OF_WEIGHTS + len(CHECKPOINTS)
    working = sorted(((most - kept) * size for size, kept in sizes), reverse=True)
    needed = sum(kept * size + RUN for size, kept in sizes) + sum(working[:jobs])
    free = shutil.disk_usage(folder).free
    runs = f"{len(open_runs)} runs, {min(jobs, len(open_runs))} at once"
    text = f"{_format_gb(needed)} for {runs}; {_format_gb(free)} free"
    unknown = [name for name, size in weights.items() if size is None]
    fewer = "keep fewer checkpoints (training.keep), " if any(kept for _, kept in sizes) else ""
    advice = f"free space, {fewer}or set results in {site.config} to another disk"
    if not os.access(folder, os.W_OK):
        yield Finding("FAIL", "disk", f"{folder} cannot be written", advice)
    elif needed > free:
        yield Finding("FAIL", "disk", text, advice)
    elif needed > TIGHT * free:
        yield Finding("warn", "disk", text, advice)
    elif unknown:
        yield Finding("warn", "disk", f"{text}; not counted, size not known: {list_some(unknown, 3)}",
                      "run the doctor again when they are fetched")  # fmt: skip
    else:
        yield Finding("ok", "disk", text)


def _count_jobs(site: Site) -> int:
    """Return the jobs at once: the profile's number, else as many as this machine has CPUs and GPUs for."""
    if not site.no_slurm:
        return max(1, site.profile.number("jobs", len(site.grid.runs)))
    asks = site.own(site.largest)
    here = site.profile.number("cores", os.cpu_count() or 1) // asks["threads"]
    if asks["gpu"] and site.profile.local_gpus:
        here = min(here, site.profile.local_gpus // asks["gpu"])
    return max(1, here)


def _format_gb(size: float) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e11 else f"{size / 1e9:.3g} GB"


def _estimate_weights(student: StudentEntry) -> int | None:
    """Return the bytes of a student's weights in fp32, as they are saved; None where nobody knows yet."""
    if student.scratch is not None:
        return 4 * count_weights(student.scratch, student.scratch.vocabulary)
    folder = find_checkpoint(student)
    count = None if folder is None else _count_stored(folder) or _read_parameters(folder / "config.json")
    if count is None:
        named = re.fullmatch(r"google/(?:t5-v1_1|flan-t5)-(small|base|large|xl)", str(student.pretrained))
        count = KNOWN[named[1]] if named else None
    return None if count is None else 4 * count


def _count_stored(folder: Path) -> int | None:
    """Return the parameters that a checkpoint stores; None where its weights are not here, or not whole."""
    try:
        headers = Stored(folder).headers
    except (UserError, OSError):
        return None
    return sum(math.prod(header.shape) for name, header in headers.items() if name not in COPIES)


def _read_parameters(path: Path) -> int | None:
    """Return the parameters of the T5 that a config.json describes."""
    try:
        value: Any = read_json(path)
        layers = int(value.get("num_layers", 6))
        count = count_parameters(
            int(value["d_model"]), int(value["d_ff"]), int(value["d_kv"]), int(value["num_heads"]), layers,
            int(value.get("num_decoder_layers") or layers), int(value["vocab_size"]),
            gated=str(value.get("feed_forward_proj", "relu")).startswith("gated"),
            tied=value.get("tie_word_embeddings", True) is not False,
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return count if 0 < count < math.inf else None

"""Part `memory`: the most memory that each way takes for a few training steps, alone in a process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import children, ways
from benchmarks.speed.students import Cell, run_of

STEPS = 3
"""one to warm up (the optimiser makes its moments), and two more on other batches"""


def measure(folder: Path, cell: Cell, way: str, start: int, threads: int) -> dict[str, Any]:
    """Peaks in MB after `setup`, after the first step (`warm`) and after the last (`steps`).

    start: the number of the first step's batch, equal for both ways. Expects a process of its own. Where that
    runs out of memory: `error`, and what it held `at_least`.
    """
    torch.set_num_threads(threads)
    run = run_of(folder, cell, threads=threads, device=ways.device().type)
    try:
        peaks = _published(run, start) if way == "published" else _ours(run, cell, way, start)
        return {"cell": cell.dump(), "way": way, "start": start, **peaks}
    except (RuntimeError, MemoryError) as error:
        if not children.ran_out(1, f"{type(error).__name__}: {error}"):
            raise
        return {"error": children.OUT_OF_MEMORY, "at_least": ways.peak_memory()}


def _ours(run: Any, cell: Cell, engine: str, start: int) -> dict[str, float]:
    ours = ways.Ours(run, engine)
    peaks = {"setup": ways.peak_memory()}
    for number in ways.full_steps(ours.trainer.order, cell.batch, start + STEPS)[start:]:
        ours.step(number)
        peaks.setdefault("warm", ways.peak_memory())
    return {**peaks, "steps": ways.peak_memory()}


def _published(run: Any, start: int) -> dict[str, float]:
    from cotdistill.data.prepared import Prepared

    prepared = Prepared(run.prepared)
    rows = ways.rows_of_steps(run, prepared, start, STEPS)
    peaks: dict[str, float] = {}

    def after(number: int) -> bool:
        peaks.setdefault("warm", ways.peak_memory())
        return True

    with tempfile.TemporaryDirectory() as temporary:
        trainer = ways.published_trainer(run, prepared, Path(temporary), rows, STEPS)
        peaks["setup"] = ways.peak_memory()
        trainer.add_callback(ways.Steps(after))
        trainer.train()
    return {**peaks, "steps": ways.peak_memory()}

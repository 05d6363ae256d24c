"""Part `memory`: the most memory that each way takes for a few training steps, alone in a process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import ways
from benchmarks.speed.students import Cell, run_of

STEPS = 3
"""one to warm up (the optimiser makes its moments), and two more on other batches"""


def measure(folder: Path, cell: Cell, way: str, start: int, threads: int) -> dict[str, Any]:
    """Peaks in MB after `setup`, after the first step (`warm`) and after the last (`steps`).

    start: the number of the first step's batch, equal for both ways. Expects a process of its own.
    """
    torch.set_num_threads(threads)
    run = run_of(folder, cell, threads=threads, device=ways.device().type)
    work = _ours if way == "ours" else _published
    return {"cell": cell.dump(), "way": way, "start": start, **work(run, cell, start)}


def _ours(run: Any, cell: Cell, start: int) -> dict[str, float]:
    ours = ways.Ours(run)
    peaks = {"setup": ways.peak_memory()}
    for number in ways.full_steps(ours, cell.batch, start + STEPS)[start:]:
        ours.step(number)
        peaks.setdefault("warm", ways.peak_memory())
    return {**peaks, "steps": ways.peak_memory()}


def _published(run: Any, cell: Cell, start: int) -> dict[str, float]:
    from cotdistill.data.prepared import Prepared

    prepared = Prepared(run.prepared)
    rows = _rows(run, prepared.manifest["sizes"]["train"], start)
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


def _rows(run: Any, size: int, start: int) -> list[int]:
    """The examples that our way sees in the same steps."""
    from cotdistill.data.splits import subset
    from cotdistill.training.batches import Order

    batch = run.training.batch_size
    order = Order(subset(size, run.fraction, run.seed, run.dataset.name), batch, run.dataset.name, run.seed)
    full: list[Any] = []
    step = 0
    while len(full) < start + STEPS:
        step += 1
        if len(order.batch(step)) == batch:
            full.append(order.batch(step))
    return [int(row) for rows in full[start:] for row in rows]

"""Part `steps`: examples per second of both ways, a step of one and a step of the other in turns."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import flops, ways
from benchmarks.speed.students import Cell, run_of

LEAST = {"base": 2}
"""rounds that are measured whatever the time, 3 for other shapes"""


def measure(
    folder: Path, cell: Cell, rounds: int, seconds: float, threads: int, published: str | None = None
) -> dict[str, Any]:
    """Seconds of each way's steps on equal batches from equal weights, and what they computed.

    The first step of each is warm-up: what it computes is counted. Ends after `rounds` rounds more, or once
    `seconds` are spent and `LEAST` rounds are done. published: its precision, the cell's without.
    """
    torch.set_num_threads(threads)
    least = LEAST.get(cell.shape, 3)
    run = run_of(folder, cell, threads=threads, device=ways.device().type)
    ours = ways.Ours(run)
    numbers = ways.full_steps(ours, cell.batch, 1 + max(rounds, least))
    rows = [row for number in numbers for row in ours.rows(number)]
    rate = ways.matrix_rate(cell.precision)
    with tempfile.TemporaryDirectory() as temporary:
        prepared = ours.trainer.generator.prepared
        trainer = ways.published_trainer(
            run, prepared, Path(temporary), rows, len(numbers), precision=published
        )
        turns = Turns(ours, trainer.model, numbers, least, seconds)
        trainer.add_callback(ways.Steps(turns.after))
        trainer.train()
    tasks = [ours.lengths(number) for number in numbers[: 1 + len(turns.seconds["ours"])]]
    config = ours.model.config
    return {
        "cell": cell.dump(), "published": published or cell.precision,
        "seconds": turns.seconds, "threads": threads, "device": _name(),
        "matrix_flops": [rate, ways.matrix_rate(cell.precision)],
        "real_flops": [flops.step(config, task, padded=False) for task in tasks],
        "padded_flops": [flops.step(config, task, padded=True) for task in tasks],
        "first_flops": {name: made.flops for name, made in turns.computed.items()},
        "first_positions": {name: made.positions for name, made in turns.computed.items()},
        "first_tokens": _real(tasks[0]),
    }  # fmt: skip


class Turns:
    """Our step after each published one, both timed."""

    def __init__(self, ours: ways.Ours, model: Any, numbers: list[int], least: int, seconds: float) -> None:
        """model: the published way's; numbers: of our steps; least: rounds whatever the time."""
        self.ours, self.numbers, self.least = ours, numbers, least
        self.seconds: dict[str, list[float]] = {"published": [], "ours": []}
        self.computed = {"published": ways.Computed(model), "ours": ways.Computed(ours.model)}
        self.computed["published"].__enter__()
        self.until = time.perf_counter() + seconds
        self.mark = 0.0

    def after(self, number: int) -> bool:
        """When the published way has done its step `number` (from 0). Returns whether to go on."""
        theirs = ways.synchronised() - self.mark
        if number == 0:
            self.computed["published"].__exit__(None, None, None)
            with self.computed["ours"]:
                self.ours.step(self.numbers[0])
        else:
            start = ways.synchronised()
            self.ours.step(self.numbers[number])
            self.seconds["ours"].append(ways.synchronised() - start)
            self.seconds["published"].append(theirs)
        self.mark = ways.synchronised()
        enough = len(self.seconds["ours"]) >= self.least and self.mark > self.until
        return not enough and number + 1 < len(self.numbers)


def _real(tasks: list[tuple[list[int], list[int]]]) -> dict[str, int]:
    """Real tokens of the step whose positions were counted."""
    return {
        "encoder": sum(sum(inputs) for inputs, _ in tasks),
        "decoder": sum(sum(targets) for _, targets in tasks),
    }


def _name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"

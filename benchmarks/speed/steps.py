"""Part `steps`: examples per second of both ways, a step of one and a step of the other in turns."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import children, flops, ways
from benchmarks.speed.children import Child, Gone
from benchmarks.speed.students import Cell, run_of

WARM = 2
"""steps of each way before those that are measured: memory finds its places, and the first is counted"""
LEAST = {"base": 2}
"""rounds that are measured whatever the time, 3 for other shapes"""


def measure(
    what: str, folder: Path, cell: Cell, rounds: int, seconds: float, published: str | None = None
) -> dict[str, Any]:
    """Seconds of each way's steps on equal batches from equal weights, and what they computed.

    The first steps of each are warm-up: what the very first computes is counted. Ends after `rounds`
    rounds more, or once `seconds` are spent and `LEAST` rounds are done. published: its precision, where it
    is not the cell's.
    """
    least = LEAST.get(cell.shape, 3)
    order = {"work": "steps", "cell": cell.dump(), "published": published, "rounds": max(rounds, least)}
    times: dict[str, list[float]] = {"published": [], "ours": []}
    with contextlib.ExitStack() as stack:
        made: dict[str, Child] = {}
        try:
            for way in times:  # one after the other, so that neither is disturbed
                made[way] = Child(f"{what}, {way}", {**order, "way": way}, folder)
                stack.callback(made[way].end)
                made[way].told()  # it is ready
            for child in made.values():
                for _ in range(WARM):
                    child.turn()
            until = time.perf_counter() + seconds
            while len(times["ours"]) < rounds and (
                len(times["ours"]) < least or time.perf_counter() < until
            ):
                for way, child in made.items():
                    times[way].append(child.turn()["seconds"])
            ours, theirs = made["ours"].last(), made["published"].last()
        except Gone as gone:
            return gone.found
    return {
        "cell": cell.dump(), "published": published or cell.precision, "seconds": times, **ours["facts"],
        "first_flops": {"ours": ours["flops"], "published": theirs["flops"]},
        "first_positions": {"ours": ours["positions"], "published": theirs["positions"]},
    }  # fmt: skip


def serve(folder: Path, order: dict[str, Any], cell: Cell, threads: int) -> None:
    """In a child: one way's steps, a step a turn; then what its first step computed."""
    torch.set_num_threads(threads)
    run = run_of(folder, cell, threads=threads, device=ways.device().type)
    if order["way"] == "ours":
        _ours(run, cell, order["rounds"])
    else:
        _published(run, cell, order["rounds"], order["published"])


def _ours(run: Any, cell: Cell, rounds: int) -> None:
    ours = ways.Ours(run)
    numbers = ways.full_steps(ours.trainer.order, cell.batch, WARM + rounds)
    rate = ways.matrix_rate(cell.precision)
    computed = ways.Computed(ours.model)
    children.tell({"ready": True})
    done = 0
    for _ in children.turns():
        with contextlib.ExitStack() as stack:
            if not done:
                stack.enter_context(ways.torch_products())
                stack.enter_context(computed)
            start = ways.synchronised()
            ours.step(numbers[done])
            children.tell({"seconds": ways.synchronised() - start})
        done += 1
    # the step that was counted, and those that were measured
    tasks = [ours.lengths(number) for number in [numbers[0], *numbers[WARM:done]]]
    config = ours.model.config
    facts = {
        "threads": torch.get_num_threads(), "device": _name(),
        "matrix_flops": [rate, ways.matrix_rate(cell.precision)],
        "real_flops": [flops.step(config, task, padded=False) for task in tasks],
        "padded_flops": [flops.step(config, task, padded=True) for task in tasks],
        "first_tokens": _real(tasks[0]),
    }  # fmt: skip
    children.tell({"facts": facts, "flops": computed.flops, "positions": computed.positions})


def _published(run: Any, cell: Cell, rounds: int, precision: str | None) -> None:
    """The trainer's own loop, its data loading included, which waits for its turn after each step."""
    from cotdistill.data.prepared import Prepared

    prepared = Prepared(run.prepared)
    rows = ways.rows_of_steps(run, prepared, 0, WARM + rounds)
    work, computed, mark = children.turns(), None, 0.0

    def after(number: int) -> bool:
        nonlocal mark
        if computed is not None and number == 0:
            computed.__exit__(None, None, None)
        children.tell({"seconds": ways.synchronised() - mark})
        more = next(work, None) is not None
        mark = ways.synchronised()
        return more

    with tempfile.TemporaryDirectory() as temporary:
        trainer = ways.published_trainer(
            run, prepared, Path(temporary), rows, WARM + rounds, precision=precision
        )
        trainer.add_callback(ways.Steps(after))
        computed = ways.Computed(trainer.model)
        children.tell({"ready": True})
        next(work)
        mark = ways.synchronised()
        computed.__enter__()
        trainer.train()
    children.tell({"flops": computed.flops, "positions": computed.positions})


def _real(tasks: list[tuple[list[int], list[int]]]) -> dict[str, int]:
    """Real tokens of the step whose positions were counted."""
    return {
        "encoder": sum(sum(inputs) for inputs, _ in tasks),
        "decoder": sum(sum(targets) for _, targets in tasks),
    }


def _name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"

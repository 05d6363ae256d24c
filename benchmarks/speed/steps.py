"""Part `steps`: examples per second of each way, a step of one and a step of the next in turns."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import children, flops, ways
from benchmarks.speed.children import Child, Gone
from benchmarks.speed.students import ENGINES, Cell, run_of
from benchmarks.speed.table import GROUPED

WARM = 2
"""steps of each way before those that are measured: memory finds its places, and the first is counted"""
LEAST = {"base": 2}
"""rounds that are measured whatever the time, 3 for other shapes"""
PUBLISHED = "published"
WAYS = (PUBLISHED, GROUPED, *ENGINES)


def measure(
    what: str, folder: Path, cell: Cell, rounds: int, seconds: float, published: str | None = None
) -> dict[str, Any]:
    """Seconds of each way's steps from equal weights, and what they computed.

    The engines and the published way see equal batches. Grouped by length its batches are others, so it is
    compared by the time of all its examples; one process takes a step of each. The first steps of each
    process are warm-up: what the very first computes is counted. Ends after `rounds` rounds more, or once
    `seconds` are spent and `LEAST` rounds are done. published: its precision, where it is not the cell's.
    """
    least = LEAST.get(cell.shape, 3)
    order = {"work": "steps", "cell": cell.dump(), "published": published, "rounds": max(rounds, least)}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        made: dict[str, Child] = {}
        try:
            for way in (PUBLISHED, *ENGINES):  # one after the other, so that none is disturbed
                made[way] = Child(f"{what}, {way}", {**order, "way": way}, folder)
                stack.callback(made[way].end)
                made[way].told()  # it is ready
            for child in made.values():
                for _ in range(WARM):
                    child.turn()
            made[GROUPED] = made[PUBLISHED]
            until = time.perf_counter() + seconds
            done = 0
            while done < rounds and (done < least or time.perf_counter() < until):
                for way in WAYS:
                    times[way].append(made[way].turn()["seconds"])
                done += 1
            last = {way: made[way].last() for way in (PUBLISHED, *ENGINES)}
        except Gone as gone:
            return gone.found
    facts = {way: found for each in last.values() for way, found in each["facts"].items()}
    rates = [rate for engine in ENGINES for rate in last[engine]["matrix_flops"]]
    return {
        "cell": cell.dump(), "published": published or cell.precision, "seconds": times, "facts": facts,
        "matrix_flops": rates, "threads": last[PUBLISHED]["threads"], "device": last[PUBLISHED]["device"],
    }  # fmt: skip


def serve(folder: Path, order: dict[str, Any], cell: Cell, threads: int) -> None:
    """In a child: one way's steps, a step a turn; then what its first step computed."""
    torch.set_num_threads(threads)
    run = run_of(folder, cell, threads=threads, device=ways.device().type)
    if order["way"] in ENGINES:
        _ours(run, cell, order["way"], order["rounds"])
    else:
        _published(run, order["rounds"], order["published"])


def _ours(run: Any, cell: Cell, engine: str, rounds: int) -> None:
    ours = ways.Ours(run, engine)
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
    batches = [ours.trainer.order.batch(number) for number in [numbers[0], *numbers[WARM:done]]]
    facts = {engine: _describe(run, ours.prepared, ours.model.config, batches, computed)}
    children.tell({"facts": facts, "matrix_flops": [rate, ways.matrix_rate(cell.precision)]})


def _published(run: Any, rounds: int, precision: str | None) -> None:
    """The trainer's own loop, its data loading included, which waits for its turn after each step."""
    from cotdistill.data.prepared import Prepared

    prepared = Prepared(run.prepared)
    batch = run.training.batch_size
    plain = ways.rows_of_steps(run, prepared, 0, WARM + rounds)
    grouped = ways.grouped_by_length(run, prepared, rounds)
    rows = plain[: WARM * batch]
    for number in range(rounds):  # a step of each
        rows += plain[(WARM + number) * batch : (WARM + number + 1) * batch] + grouped[number]
    work, computed, mark, done = children.turns(), None, 0.0, 0

    def after(number: int) -> bool:
        nonlocal mark, done
        if computed is not None and number == 0:
            computed.__exit__(None, None, None)
        children.tell({"seconds": ways.synchronised() - mark})
        done = number + 1
        more = next(work, None) is not None
        mark = ways.synchronised()
        return more

    with tempfile.TemporaryDirectory() as temporary:
        steps = WARM + 2 * rounds
        trainer = ways.published_trainer(run, prepared, Path(temporary), rows, steps, precision=precision)
        trainer.add_callback(ways.Steps(after))
        computed = ways.Computed(trainer.model)
        children.tell({"ready": True})
        next(work)
        mark = ways.synchronised()
        computed.__enter__()
        trainer.train()
    measured = (done - WARM) // 2
    config = trainer.model.config
    batches = [plain[start : start + batch] for start in range(0, (WARM + measured) * batch, batch)]
    children.tell({
        "facts": {
            PUBLISHED: _describe(run, prepared, config, [batches[0], *batches[WARM:]], computed),
            GROUPED: _describe(run, prepared, config, [grouped[0], *grouped[:measured]], None),
        },
        "threads": torch.get_num_threads(), "device": _name(),
    })  # fmt: skip


def _describe(
    run: Any, prepared: Any, config: Any, batches: Sequence[Sequence[int]], computed: ways.Computed | None
) -> dict[str, Any]:
    """What the measured steps needed, and what was computed for it.

    batches: examples of the step that was counted, then of those that were measured. computed: what was
    counted; without, what padding to the longest makes of all measured steps.
    """
    measure = ways.Measure(run, prepared)
    first, *measured = [measure.lengths(rows) for rows in batches]
    real = [flops.step(config, tasks, padded=False) for tasks in measured]
    if computed is not None:
        more = computed.flops / flops.step(config, first, padded=False)
        positions, tokens = computed.positions, flops.positions([first], padded=False)
    else:
        more = sum(flops.step(config, tasks, padded=True) for tasks in measured) / sum(real)
        positions, tokens = (flops.positions(measured, padded) for padded in (True, False))
    padding = {side: 1 - tokens[side] / count if count else None for side, count in positions.items()}
    return {"real_flops": real, "computed": more, "padding": padding}


def _name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"

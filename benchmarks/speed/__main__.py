"""Measure this package against the published way: `python -m benchmarks.speed` from the root (`make bench`).

Prints a Markdown table a part: this package with either engine, and the published way. They take turns in one
run, so that what slows the machine slows all; each has a process of its own. Without choices of cells a
selection is measured, within `--minutes`; any choice (`--shapes`, `--methods`, ...) measures all combinations
of it. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed import children, processes, table
from benchmarks.speed.children import Found, told
from benchmarks.speed.students import DATA, ENDS, ENGINES, METHODS, SHAPES, Cell

PARTS = ("steps", "memory", "evaluation", "start", "prepare", "workflow")
NOT_MEASURED = "not measured"

SELECTION = [
    *(Cell("small", method, "cqa", 64, "fp32") for method in METHODS),
    Cell("small", "mi-paper", "cqa", 64, "bf16"),
    *(Cell("small", method, data, 16, "fp32") for data in DATA for method in METHODS),
    *(Cell("base", method, "cqa", 16, "fp32") for method in ("dss", "mi-paper")),
]
"""whose steps are measured where no cells are chosen, the most telling first"""
HEAVY = [Cell("small", "mi-paper", "cqa", 64, "fp32"), Cell("base", "mi-paper", "cqa", 64, "fp32")]
"""whose memory is"""


def main() -> None:
    """Measure the parts that are asked for."""
    options = _parser().parse_args()
    if options.child:
        _child(Path(options.folder), json.loads(options.child))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(folder.resolve(), options)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    add = parser.add_argument
    add("--part", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    add("--shapes", nargs="+", choices=list(SHAPES), help="students")
    add("--methods", nargs="+", choices=list(METHODS))
    add("--data", nargs="+", choices=list(DATA))
    add("--batch", nargs="+", type=int, metavar="N", help="examples a step")
    add("--precision", nargs="+", choices=["fp32", "bf16"])
    add("--published-precision", choices=["fp32", "bf16"],
        help="of the published way in the part steps, where it is to differ from the cell's")
    add("--rounds", type=int, default=5, help="steps of each way a cell, at most (default: %(default)s)")
    add("--seconds", type=float, default=45, help="after which a cell begins no further round (%(default)s)")
    add("--memory-rounds", type=int, default=1, help="processes of each way a cell (default: %(default)s)")
    add("--minutes", type=float, default=30,
        help="after which the parts steps and memory each begin no further cell (default: %(default)s)")
    add("--start-rounds", type=int, default=5, help="default: %(default)s")
    add("--jobs", nargs="+", type=int, default=[2000, 10_000], help="of the dry runs (default: %(default)s)")
    add("--workflow-rounds", type=int, default=1, help="dry runs of each size (default: %(default)s)")
    add("--evaluation-rounds", type=int, default=2, help="passes over the test set (default: %(default)s)")
    add("--ends", nargs="+", choices=ENDS, default=list(ENDS),
        help="when the answers end that are evaluated (default: %(default)s)")
    add("--training-steps", type=int, default=50, help="before the evaluation (default: %(default)s)")
    add("--json", metavar="FILE", help="also write all that was measured")
    add("--folder", help="keep students and prepared data here, and use what is there (default: temporary)")
    add("--child", help=argparse.SUPPRESS)
    return parser


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for; prints each part's table when it is done."""
    cells = chosen(options)
    if {"steps", "memory", "evaluation"} & set(options.part):
        shapes = sorted({cell.shape for cell in cells})
        datasets = sorted({cell.data for cell in cells} | {"cqa"})
        told("prepare", {"work": "prepare", "shapes": shapes, "datasets": datasets}, folder)
    parts: dict[str, Callable[[], Any]] = {
        "steps": lambda: _steps(folder, cells, options),
        "memory": lambda: _memory(folder, chosen(options, HEAVY), options),
        "evaluation": lambda: _evaluation(folder, cells, options),
        "start": lambda: processes.start(folder, options.start_rounds),
        "prepare": lambda: processes.prepare(folder),
        "workflow": lambda: processes.workflow(folder, options.jobs, options.workflow_rounds),
    }
    shown = {name: value for name, value in vars(options).items() if name not in ("child", "folder")}
    found: dict[str, Any] = {"options": shown}
    for part in PARTS:
        if part in options.part:
            began = time.perf_counter()
            found[part] = parts[part]()
            text = getattr(table, part)(found[part])
            print(f"\n## {part} ({time.perf_counter() - began:.0f} s)\n\n{text}", flush=True)
    return found


def chosen(options: argparse.Namespace, selection: list[Cell] = SELECTION) -> list[Cell]:
    """The cells to measure: all combinations of what is chosen, or the selection."""
    axes = (options.shapes, options.methods, options.data, options.batch, options.precision)
    if not any(axes):
        return list(selection)
    defaults: tuple[list[Any], ...] = (["small"], list(METHODS), list(DATA), [16], ["fp32"])
    filled = [given or default for given, default in zip(axes, defaults, strict=True)]
    return [Cell(*values) for values in itertools.product(*filled)]


def _steps(folder: Path, cells: list[Cell], options: argparse.Namespace) -> list[Found]:
    from benchmarks.speed import steps

    def one(cell: Cell) -> Found:
        return steps.measure(
            table.label(cell.dump()), folder, cell, options.rounds, options.seconds,
            options.published_precision,
        )  # fmt: skip

    return _within(options.minutes, cells, one)


def _memory(folder: Path, cells: list[Cell], options: argparse.Namespace) -> list[Found]:
    def one(cell: Cell) -> Found:
        peaks: dict[str, list[Found]] = {way: [] for way in ("published", *ENGINES)}
        for number in range(options.memory_rounds):
            for way, found in peaks.items():
                order = {"work": "memory", "cell": cell.dump(), "way": way, "start": number}
                found.append(told(f"{table.label(cell.dump())}, {way}", order, folder))
        return {"cell": cell.dump(), "peaks": peaks}

    return _within(options.minutes, cells, one)


def _evaluation(folder: Path, cells: list[Cell], options: argparse.Namespace) -> list[Found]:
    from benchmarks.speed import answering

    shape = "small" if any(cell.shape == "small" for cell in cells) else cells[0].shape
    precision = (options.precision or ["fp32"])[0]
    cell = Cell(shape, "finetune", "cqa", 16, precision)
    what = table.label(cell.dump())
    return [
        answering.measure(
            f"{what}, {ends}", folder, cell, ends, options.evaluation_rounds, options.seconds,
            options.training_steps,
        )
        for ends in options.ends
    ]  # fmt: skip


def _within(minutes: float, cells: list[Cell], work: Callable[[Cell], Found]) -> list[Found]:
    """What `work` finds for the cells, until the minutes are over."""
    until = time.perf_counter() + 60 * minutes
    return [
        work(cell) if time.perf_counter() < until else {"cell": cell.dump(), "error": NOT_MEASURED}
        for cell in cells
    ]


def _child(folder: Path, order: Found) -> None:
    """Do one piece of work in this process and tell what it found."""
    from benchmarks.speed import answering, memory, steps, students

    children.modest()
    threads = os.cpu_count() or 1
    if order["work"] == "prepare":
        students.prepare(folder, order["shapes"], order["datasets"])
        children.tell({})
        return
    cell = Cell(**order["cell"])
    if order["work"] == "memory":
        children.tell(memory.measure(folder, cell, order["way"], order["start"], threads))
    elif order["work"] == "steps":
        steps.serve(folder, order, cell, threads)
    else:
        answering.serve(folder, order, cell, threads)


if __name__ == "__main__":
    main()

"""What a grid will cost, before it runs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from cotdistill.config.grid import Run, expand
from cotdistill.config.models import Experiment
from cotdistill.errors import UserError
from cotdistill.files import digest, read_json

RUN_FOLDERS = "*/runs/*/*/*/*/*/*"
"""run folders below a results folder: experiment, then the six axes"""


def describe(experiment: Experiment) -> str:
    """The grid as text: one line a cell (all its seeds), totals, and estimated hours where known."""
    seconds = measured(Path(experiment.results))
    cells: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in expand(experiment):
        cells[tuple(run.id.split("/")[:-1])].append(run)
    rows = [("dataset", "student", "method", "labels", "fraction", "seeds", "steps a run", "hours")]
    for cell, runs in cells.items():
        hours = [estimate(run, seconds) for run in runs]
        known = [hour for hour in hours if hour is not None]
        text = f"{sum(known):.2f}" if len(known) == len(runs) else "?"
        rows.append((*cell, str(len(runs)), f"{runs[0].training.steps:,}", text))  # type: ignore[arg-type]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = "\n".join("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
                      for row in rows)
    return f"{table}\n\n{_totals(list(cells.values()), seconds)}"


def _totals(cells: list[list[Run]], seconds: dict[str, float]) -> str:
    runs = [run for cell in cells for run in cell]
    known = [hours for run in runs if (hours := estimate(run, seconds)) is not None]
    steps = sum(run.training.steps for run in runs)
    line = f"{len(cells)} cells, {len(runs)} runs, {steps:,} steps"
    if not known:
        return f"{line}; hours unknown: no earlier run of the same kind"
    missing = len(runs) - len(known)
    rest = f" (and {missing} runs of a kind not run before)" if missing else ""
    return f"{line}; about {sum(known):.2f} compute hours{rest}, from earlier runs of the same kind"


def measured(results: Path) -> dict[str, float]:
    """Median seconds a step of finished runs, by kind."""
    found: dict[str, list[float]] = defaultdict(list)
    for folder in results.glob(RUN_FOLDERS):
        try:
            config = read_json(folder / "config.json")["config"]
            wall = read_json(folder / "environment.json")["wall_s"]
            steps = read_json(folder / "training.json")["steps"]
            step = wall / steps  # before `found` is touched: a kind without a number has no median
            found[kind(config)].append(step)
        except (UserError, KeyError, TypeError, ZeroDivisionError):
            continue  # a run under way, or a folder that is none: it tells nothing about cost
    return {key: statistics.median(values) for key, values in found.items()}


def kind(config: dict[str, Any]) -> str:
    """Runs of one kind cost the same a step: all but the axes that only change which numbers come out."""
    training = {key: config["training"][key] for key in (
        "batch_size", "accumulation", "precision", "max_input_tokens", "max_target_tokens", "eval_every",
        "device", "gpus",
    )}
    parts = ("dataset_settings", "student_settings", "method_settings")
    return digest([training, *(config[part] for part in parts)])


def estimate(run: Run, seconds: dict[str, float]) -> float | None:
    """Hours of training for one run, or None where no run of its kind was measured."""
    step = seconds.get(kind(run.config))
    return None if step is None else run.training.steps * step / 3600

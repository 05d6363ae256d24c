"""Tell what a grid will cost, before it runs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, read_json
from cotdistill.common.machine import count_cores
from cotdistill.common.text_tables import Row, plain_table
from cotdistill.config.models import Experiment
from cotdistill.orchestration.fit import list_warnings
from cotdistill.runs import answers
from cotdistill.runs.experiment import describe_uncompared
from cotdistill.runs.folder import RunFiles
from cotdistill.runs.grid import Run, expand

RUN_FOLDERS = "*/runs/*/*/*/*/*/*"
"""run folders below a results folder: experiment, then the six axes"""


def describe(experiment: Experiment) -> str:
    """Return the grid as text: a line a cell (all its seeds), totals, and estimated hours where known."""
    seconds = measure_steps(Path(experiment.results))
    cells: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in expand(experiment):
        cells[tuple(run.id.split("/")[:-1])].append(run)
    header = ("dataset", "student", "method", "labels", "fraction", "seeds", "steps a run", "hours")
    rows: list[Row] = [header]
    for cell, runs in cells.items():
        hours = [estimate(run, seconds) for run in runs]
        known = [hour for hour in hours if hour is not None]
        text = f"{sum(known):.2f}" if len(known) == len(runs) else "?"
        rows.append((*cell, str(len(runs)), f"{runs[0].training.steps:,}", text))
    wall = estimate_minutes(experiment, seconds)
    on = f"; {wall:.0f} minutes or so on the {count_cores()} cores here" if wall is not None else ""
    lines = [f"{_format_totals(list(cells.values()), seconds)}{on}", *_list_lost(experiment)]
    lines += _list_cuts(experiment)
    lines += list_warnings(experiment, lambda run: estimate(run, seconds))
    if said := describe_uncompared(experiment):
        lines.append(f"warning: {said}")
    return "\n".join([plain_table(rows), "", *lines])


def _list_cuts(experiment: Experiment) -> list[str]:
    """Return a line on each dataset that is cut anew."""
    return [
        f"{entry.name}: {entry.split} split of {entry.adapter}"
        for entry in experiment.datasets
        if entry.split != "published"
    ]


def _list_lost(experiment: Experiment) -> list[str]:
    """Return a line on finished runs that will be trained again for want of weights, where there are some."""
    lost = len(answers.list_lost_runs(expand(experiment)))
    line = (
        f"{lost} finished runs must answer test anew, and their weights were removed (training.keep): "
        "`cotdistill reproduce` trains them again"
    )
    return [line] if lost else []


def _format_totals(cells: list[list[Run]], seconds: dict[str, float]) -> str:
    runs = [run for cell in cells for run in cell]
    known = [hours for run in runs if (hours := estimate(run, seconds)) is not None]
    steps = sum(run.training.steps for run in runs)
    line = f"{len(cells)} cells, {len(runs)} runs, {steps:,} steps"
    if not known:
        return f"{line}; hours unknown: no earlier run of the same kind"
    missing = len(runs) - len(known)
    rest = f" (and {missing} runs of a kind not run before)" if missing else ""
    return f"{line}; about {sum(known):.2f} compute hours{rest}, from earlier runs of the same kind"


def estimate_minutes(experiment: Experiment, seconds: dict[str, float]) -> float | None:
    """Estimate minutes of the whole grid on this machine, by what its jobs took before; None: unknown.

    A run's time is that of its steps and what its jobs took beside them; the stages before and after
    the runs add up.
    """
    runs = expand(experiment)
    hours = [estimate(run, seconds) for run in runs]
    times = experiment.folder / "benchmarks"
    beside = [rest for run in runs if (rest := _measure_overhead(run, times)) is not None]
    stages = [
        job for stage in ("prepare", "collect", "compare", "figures", "track")
        for path in [*times.glob(f"{stage}.tsv"), *times.glob(f"{stage}/**/*.tsv")]
        if (job := _read_job_seconds(path)) is not None
    ]  # fmt: skip
    if None in hours or not beside or not stages:
        return None
    training = sum(hour * 3600 for hour in hours if hour is not None) + len(runs) * statistics.median(beside)
    slots = max(1, count_cores() // max(run.student.compute.threads for run in runs))
    return (training / min(slots, len(runs)) + sum(stages)) / 60


def _measure_overhead(run: Run, times: Path) -> float | None:
    """Return the seconds that a finished run's two jobs took beside its steps."""
    jobs = [_read_job_seconds(Path(times, stage, f"{run.id}.tsv")) for stage in ("train", "evaluate")]
    try:
        wall = float(read_json(run.files.environment)["wall_s"])
    except (UserError, KeyError, TypeError, ValueError):
        return None
    known = [job for job in jobs if job is not None]
    return max(0.0, sum(known) - wall) if len(known) == len(jobs) else None


def _read_job_seconds(path: Path) -> float | None:
    """Return the seconds that Snakemake measured of a job."""
    try:
        return float(path.read_text(encoding="utf-8").splitlines()[1].split("\t")[0])
    except (OSError, IndexError, ValueError):
        return None


def measure_steps(results: Path) -> dict[str, float]:
    """Return the median seconds a step of finished runs, by kind."""
    found: dict[str, list[float]] = defaultdict(list)
    for files in map(RunFiles, results.glob(RUN_FOLDERS)):
        try:
            config = read_json(files.config)["config"]
            wall = read_json(files.environment)["wall_s"]
            steps = read_json(files.training)["steps"]
            step = wall / steps  # before `found` is touched: a kind without a number has no median
            found[digest_kind(config)].append(step)
        except (UserError, KeyError, TypeError, ZeroDivisionError):
            continue  # a run under way, or a folder that is none: it tells nothing about cost
    return {key: statistics.median(values) for key, values in found.items()}


def digest_kind(config: dict[str, Any]) -> str:
    """Digest what decides the cost of a step: runs of one kind cost the same."""
    training = {key: config["training"][key] for key in (
        "batch_size", "accumulation", "precision", "max_input_tokens", "max_target_tokens", "eval_every",
        "device", "gpus", "engine",
    )}
    parts = ("dataset_settings", "student_settings", "method_settings")
    return digest([training, *(config[part] for part in parts)])


def estimate(run: Run, seconds: dict[str, float]) -> float | None:
    """Return the hours of training for one run, or None where no run of its kind was measured."""
    step = seconds.get(digest_kind(run.config))
    return None if step is None else run.training.steps * step / 3600

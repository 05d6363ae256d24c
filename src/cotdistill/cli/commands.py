"""Define a function for each command, and its options beside `--config`."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cotdistill.common import machine
from cotdistill.common.errors import UserError, make_unknown_error
from cotdistill.common.files import write_json
from cotdistill.common.text import parse_whole_number
from cotdistill.jobs.manners import guard
from cotdistill.runs.experiment import load
from cotdistill.runs.limits import READERS_MB, check_address_space

Options = argparse.Namespace


def plan(options: Options) -> None:
    """Print the grid: cells, runs, steps, and hours estimated from earlier runs of the same kind."""
    from cotdistill.orchestration.plan import describe
    from cotdistill.runs.grid import expand

    experiment = load(options.config)
    print("\n".join(run.id for run in expand(experiment)) if options.runs else describe(experiment))


def status(options: Options) -> None:
    """Show how far a grid is: done, running, failed and waiting runs, from the run folders alone.

    Without --config: the experiments that are in the results folder, a line each.
    """
    from cotdistill.orchestration.experiments import describe_all
    from cotdistill.orchestration.progress import format_table, list_statuses

    if options.config is None:
        print(describe_all(Path(options.results), options.all))
    else:
        print(format_table(list_statuses(load(options.config)), options.all))


def fetch(options: Options) -> None:
    """Download and verify the published data (datasets.zip) into the data folder."""
    from cotdistill.data import release

    print(f"published data in {release.fetch(options.root or load(options.config).data_root)}")


def prepare(options: Options) -> None:
    """Parse and tokenise one (dataset, student) pair into Arrow, shared by all its runs."""
    from cotdistill.data.overlap_report import describe_overlap, read_overlap
    from cotdistill.data.prepared import Prepared, read_warnings
    from cotdistill.jobs.prepare import prepare as run
    from cotdistill.runs.grid import find_prepared_folder

    check_address_space(READERS_MB)
    experiment = load(options.config)
    datasets = {entry.name: entry for entry in experiment.datasets}
    students = {entry.name: entry for entry in experiment.students}
    if options.dataset not in datasets:
        raise make_unknown_error("dataset", options.dataset, datasets)
    if options.student not in students:
        raise make_unknown_error("student", options.student, students)
    folder = find_prepared_folder(experiment, options.dataset, options.student)
    anew = run(experiment, datasets[options.dataset], students[options.student], folder)
    print(f"prepared {folder}" if anew else f"{folder}: already prepared, nothing to do")
    manifest = Prepared(folder).manifest
    if overlap := read_overlap(folder, manifest["checksum"]):
        print("\n".join(describe_overlap(overlap)))
    print("ids: " + ", ".join(f"{split} {digest}" for split, digest in manifest["split_ids"].items()))
    for line in read_warnings(folder):
        print(f"warning: {line}")


def train(options: Options) -> int:
    """Train one run of the grid, from its last saved state if it has one."""
    from cotdistill.jobs.launch import launch

    run = _run(options)
    with guard(run):
        check_address_space()
        if run.training.gpus > 1 and "RANK" not in os.environ:
            return launch(run)
        _go_offline()
        from cotdistill.jobs.train import train as run_training

        run_training(run)
    return 0


def evaluate(options: Options) -> None:
    """Evaluate a trained run on test, by the strict and the published protocol."""
    run = _run(options)
    with guard(run):
        check_address_space()
        _go_offline()
        from cotdistill.jobs.evaluate import evaluate as run_evaluation

        metrics = run_evaluation(run)
    strict, published = metrics.strict, metrics.published
    groups = f" in {strict.test_groups} groups" if strict.test_groups < strict.test_n else ""
    print(f"{run.id}: strict {strict.test_accuracy:.4f} (step {strict.step}), "
          f"published {published.test_accuracy:.4f} (step {published.step}), n={strict.test_n}{groups}")


def judge(options: Options) -> None:
    """Ask the judge of `evaluation.judge` (an LLM behind an HTTP address) to rate rationales, 1 to 5."""
    from cotdistill.evaluation.judge import judge as run

    _print(run(load(options.config)))


def collect(options: Options) -> None:
    """Gather all runs into tidy tables: results (also CSV), history, measures and examples.parquet."""
    from cotdistill.tables.collect import collect as run

    _print(run(load(options.config), allow_missing=options.allow_missing))


def partial(options: Options) -> None:
    """Write tables and figures of the finished runs alone, naming the missing: what a failed grid leaves."""
    from cotdistill.orchestration.partial import write_partial

    _print(write_partial(load(options.config)))


def compare(options: Options) -> None:
    """Write the comparison tables (Markdown, CSV, LaTeX) from the results table."""
    from cotdistill.report.comparison import write_comparison

    _print(write_comparison(load(options.config)))


def figures(options: Options) -> None:
    """Draw the figures (PNG and PDF) from the results table."""
    from cotdistill.report.figures import draw_all

    _print(draw_all(load(options.config)))


def track(options: Options) -> None:
    """Write the results into MLflow; doing it twice adds nothing. With --follow, while runs train."""
    from cotdistill import tracking

    experiment = load(options.config)
    if options.follow is not None:
        result = tracking.follow(experiment, options.follow)
    else:
        result = tracking.track(experiment)
        write_json(experiment.folder / "tracked.json", result)
    print(", ".join(f"{key} {value}" for key, value in result.items()))


def reproduce(options: Options) -> int:
    """Run the whole grid through Snakemake, showing progress, and print the comparison."""
    from cotdistill.orchestration.reproduce import reproduce as run

    return run(Path(options.config), options.cores, options.wait)


def doctor(options: Options) -> int:
    """Check a site before a long run, a line a check: Slurm, GPU, folders, models, data, disk, leftovers."""
    from cotdistill.orchestration.doctor.checks import run_checks as run

    return run(options.config, options.profile, options.job_timeout)


def schema(options: Options) -> int:
    """Write the generated files: commented defaults and JSON schema of the config."""
    from cotdistill.orchestration import schema as document

    root = Path(options.root)
    if not options.check:
        _print(document.write(root))
        return 0
    stale = document.drift(root)
    if stale:
        raise UserError(f"out of date: {', '.join(map(str, stale))}; run `cotdistill schema`")
    return 0


def _run(options: Options) -> Any:
    from cotdistill.runs.grid import find

    run = find(load(options.config), options.run_id)
    if options.expect and options.expect != run.hash:
        raise UserError(
            f"{options.config}: run {run.id} has config hash {run.hash}, the job was planned with "
            f"{options.expect}: the config changed since; start snakemake again"
        )
    return run


def _go_offline() -> None:
    """Keep from the network: training and evaluation read what is prepared; cluster nodes have none."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


DAY = 86_400
"""the longest time to wait, in seconds"""


def _parse_seconds(text: str) -> float:
    """Parse a time to wait: a number above 0."""
    if (value := _parse_seconds_or_none(text)) > 0:
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is no time to wait; expected seconds above 0, up to {DAY:,}")


def _parse_seconds_or_none(text: str) -> float:
    """Parse a time to wait, where 0 is not to wait at all."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= DAY:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no time to wait; expected seconds from 0 to {DAY:,}")


def _parse_cores(text: str) -> int:
    """Parse a number of jobs at once: no more than the cores here, as each has one to itself."""
    cores = machine.count_cores()
    if 1 <= (parse_whole_number(text) or 0) <= cores:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} jobs at once; expected a whole number from 1 to {cores}, the "
                                     "cores of this machine")  # fmt: skip


def _print(paths: Any) -> None:
    for path in paths if isinstance(paths, (list, tuple)) else [paths]:
        print(path)


COMMANDS: dict[str, Callable[[Options], Any]] = {
    "plan": plan,
    "status": status,
    "fetch": fetch,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "judge": judge,
    "collect": collect,
    "partial": partial,
    "compare": compare,
    "figures": figures,
    "track": track,
    "reproduce": reproduce,
    "doctor": doctor,
    "schema": schema,
}
WITHOUT_CONFIG = ("schema", "status")

_RUN: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("--run",), {"dest": "run_id", "required": True, "metavar": "ID",
                  "help": "dataset/student/method/labels/fraction/seed; `cotdistill plan --runs` lists all"}),
    (("--expect",), {"metavar": "HASH", "help": "refuse to run if the run's config has another hash"}),
]
OPTIONS: dict[str, list[tuple[tuple[str, ...], dict[str, Any]]]] = {
    "plan": [(("--runs",), {"action": "store_true", "help": "list the ids of the runs, a line each"})],
    "fetch": [(("--root",), {"help": "folder to download to (default: data_root, COTDISTILL_DATA or data)"})],
    "prepare": [(("--dataset",), {"required": True}), (("--student",), {"required": True})],
    "status": [
        (("--config",), {"help": "config file of one experiment (default: list those in --results)"}),
        (("--results",), {"default": "results", "metavar": "FOLDER",
                          "help": "folder of the experiments to list (default: %(default)s)"}),
        (("--all",), {"action": "store_true", "help": "a line for every run, also done and waiting"}),
    ],
    "train": _RUN,
    "evaluate": _RUN,
    "collect": [(("--allow-missing",), {"action": "store_true", "help": "mark missing runs, do not stop"})],
    "track": [
        (("--follow",), {"type": _parse_seconds, "nargs": "?", "const": 5.0, "metavar": "SECONDS",
                         "help": "mirror runs in training too, every SECONDS (default: 5)"}),
    ],
    "reproduce": [
        (("--cores",), {"type": _parse_cores, "metavar": "N", "help": "jobs at once (default: all cores)"}),
        (("--wait",), {"action": "store_true", "help": "wait while another call runs this grid"}),
    ],
    "doctor": [
        (("--profile",), {"metavar": "NAME", "help": "Snakemake profile (default: slurm where Slurm is)"}),
        (("--job-timeout",), {"type": _parse_seconds_or_none, "default": 120.0, "metavar": "SECONDS",
                              "help": "longest wait for the test job; 0: none (default: %(default)g)"}),
    ],
    "schema": [
        (("--root",), {"default": ".", "help": "root of the checkout (default: here)"}),
        (("--check",), {"action": "store_true", "help": "fail if the files are out of date"}),
    ],
}

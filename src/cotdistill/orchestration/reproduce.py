"""Run the whole grid through Snakemake, watched, and print the comparison: `make reproduce`."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.data.prepared import read_warnings
from cotdistill.orchestration.endings import describe_store, explain_failure, explain_stop
from cotdistill.orchestration.fit import check_local
from cotdistill.orchestration.hold import check_no_snakemake, hold, is_locked
from cotdistill.orchestration.progress import format_line, list_statuses
from cotdistill.orchestration.snakemake import GRACE, Jobs, Requests, begin_log, run
from cotdistill.orchestration.workflow import freeze
from cotdistill.runs import answers
from cotdistill.runs.experiment import describe_uncompared, load
from cotdistill.runs.grid import expand

EVERY = 15.0
"""seconds between progress lines where the output is no terminal"""
STOPPING = "stopping: runs in training save their state first (Ctrl-C again: end at once)"
ENDING = f"ending at once, within {GRACE:.0f} s: runs go on from the state that they saved last"


def reproduce(config: Path, cores: int | None, wait: bool = False) -> int:
    """Run the grid, draw the report, print table and paths.

    wait: where another call runs the grid, wait until it has ended; else that is an error.
    Returns Snakemake's exit code, or 128 and the number of the signal that asked to stop.
    """
    experiment = load(config)
    if not Path("Snakefile").is_file():
        raise UserError(f"no Snakefile in {Path.cwd()}: run this in the root of the checkout")
    check_local(experiment)
    if said := describe_uncompared(experiment):
        print(f"warning: {said}", file=sys.stderr, flush=True)
    with hold(experiment, wait):
        return _run(experiment, config, cores)


def _run(experiment: Experiment, config: Path, cores: int | None) -> int:
    folder, started, requests = experiment.folder, time.time(), Requests()
    command = ["--configfile", str(config), "--cores", str(cores) if cores else "all"]
    _unlock(experiment, folder / "logs" / "unlock.log", config)
    log = own = begin_log(folder / "logs")
    print(f"running {config} through Snakemake (its own log: {log})", flush=True)
    progress = _Progress(experiment, log)
    code = run([*command, *_train_again(experiment)], log, requests, progress.show)
    progress.end()
    said = log.read_text(encoding="utf-8", errors="replace")
    if code == 0 and not requests.signals:
        code, log = _write_report(experiment, command, log, said, requests)
    if requests.signals:
        explain_stop(experiment, own, config, cores, started)
        return requests.exit_code
    if code:
        if "LockException" in said:
            check_no_snakemake()
            raise UserError("a snakemake held this grid until this moment, or does elsewhere; start again")
        explain_failure(folder, log, started)
        _print_partial(experiment, folder)
        return code
    freeze(experiment)  # Snakemake does so only where it has something to do
    _print_results(experiment, folder)
    return 0


def _train_again(experiment: Experiment) -> list[str]:
    """Return Snakemake's arguments that train the runs again which lack the weights to answer test anew."""
    lost = answers.list_lost_runs(expand(experiment))
    if not lost:
        return []
    print(f"{len(lost)} runs are trained again: test is to be answered anew, and their weights were removed "
          "(training.keep)", flush=True)  # fmt: skip
    return ["--forcerun", *(str(each.files.training) for each in lost)]


def _write_report(
    experiment: Experiment, command: list[str], log: Path, said: str, requests: Requests
) -> tuple[int, Path]:
    """Have Snakemake write its report, unless nothing was done; returns its exit code, and its log."""
    report = experiment.folder / "report.html"
    if "Nothing to be done" in said and report.is_file():
        print(f"nothing to be done: all {len(list_statuses(experiment))} runs are up to date\n")
        return 0, log
    print("writing the report", flush=True)
    log = log.with_name("report.log")
    return run([*command, "--report", str(report)], log, requests), log


def _unlock(experiment: Experiment, log: Path, config: Path) -> None:
    """Remove the lock of a Snakemake that was killed. Raises UserError where one works in this folder."""
    if not is_locked(experiment):
        return
    check_no_snakemake()
    print("an earlier snakemake was killed here: removing its lock", flush=True)
    if run(["--configfile", str(config), "--unlock"], log, Requests()):
        raise UserError(f"snakemake --unlock failed: see {log}")


class _Progress:
    """Show a line of progress: live on a terminal, else now and then."""

    def __init__(self, experiment: Experiment, log: Path) -> None:
        self.experiment, self.jobs = experiment, Jobs(log)
        self.live = sys.stdout.isatty()
        self.first = sum(status.step for status in list_statuses(experiment))
        self.started, self.shown, self.asked = time.monotonic(), 0.0, 0

    def show(self, asked: int) -> None:
        """Show the line, if it is time for it; once it was `asked` to stop, what that means instead."""
        if asked > self.asked:
            if self.live:
                print(flush=True)  # behind the live line, and the ^C that the terminal shows
            self.shown = 0.0
            print(STOPPING if asked == 1 else ENDING, file=sys.stderr, flush=True)
        self.asked = asked
        if asked:
            return
        elapsed = time.monotonic() - self.started
        if elapsed - self.shown < (1.0 if self.live else EVERY):
            return
        self.shown = elapsed
        text = format_line(list_statuses(self.experiment), elapsed, self.first, self.jobs.list_stages())
        if self.live:  # one line, which a longer one than the terminal's would not be
            text = f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}"
        print(text, end="" if self.live else "\n", flush=True)

    def end(self) -> None:
        """Leave the live line."""
        if self.live and self.shown:
            print(flush=True)
        self.shown = 0.0


def _print_partial(experiment: Experiment, folder: Path) -> None:
    """Print what Snakemake's `onerror` made of the finished runs, if it came to that."""
    table = folder / "tables" / "comparison.md"
    if not table.is_file():
        return
    from cotdistill.orchestration.partial import OUT_OF_DATE
    from cotdistill.report.comparison import summarize

    if table.stat().st_mtime == OUT_OF_DATE:
        print(summarize(experiment))
        print(f"table    {table} (names the missing runs)")
        print(f"\n{table.with_name('verdict.txt').read_text(encoding='utf-8')}", end="")


def _print_warnings(folder: Path) -> None:
    """Print each distinct warning that preparing wrote beside a pair's data."""
    found = [line for path in sorted(folder.glob("prepared/*/*")) for line in read_warnings(path)]
    for line in dict.fromkeys(found):
        print(f"warning: {line}")


def _print_results(experiment: Experiment, folder: Path) -> None:
    from cotdistill.report.comparison import summarize

    _print_warnings(folder)
    print(summarize(experiment))
    print(f"table    {folder / 'tables' / 'comparison.md'} (also .html, .csv, .tex)")
    for figure in sorted((folder / "figures").glob("*.png")):
        print(f"figure   {figure} (also .pdf)")
    print(f"report   {folder / 'report.html'}")
    print(f"MLflow   {describe_store(experiment)}")
    print(f"\n{(folder / 'tables' / 'verdict.txt').read_text(encoding='utf-8')}", end="")

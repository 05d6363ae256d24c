"""Run the whole grid through Snakemake, watched, and print the comparison: `make reproduce`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cotdistill.common.errors import UserError
from cotdistill.common.surroundings import make_cache_environment
from cotdistill.config.models import Experiment
from cotdistill.orchestration.progress import format_line, list_statuses
from cotdistill.runs.experiment import load

EVERY = 15.0
"""seconds between progress lines where the output is no terminal"""


def reproduce(config: Path, cores: int | None) -> int:
    """Run the grid, draw the report, print table and paths. Returns Snakemake's exit code."""
    experiment = load(config)
    if not Path("Snakefile").is_file():
        raise UserError(f"no Snakefile in {Path.cwd()}: run this in the root of the checkout")
    folder = experiment.folder
    log = folder / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["--configfile", str(config), "--cores", str(cores) if cores else "all"]
    started = time.time()
    _unlock(log.parent / "unlock.log", config)
    print(f"running {config} through Snakemake (its own log: {log})", flush=True)
    code = _watch(experiment, command, log)
    if code:
        _explain(folder, log, started)
        _print_partial(experiment, folder)
        return code
    report = folder / "report.html"
    if "Nothing to be done" in log.read_text(encoding="utf-8", errors="replace") and report.is_file():
        print(f"nothing to be done: all {len(list_statuses(experiment))} runs are up to date\n")
    elif code := _run_snakemake([*command, "--report", str(report)], folder / "logs" / "report.log"):
        _explain(folder, folder / "logs" / "report.log", started)
        return code
    _print_results(experiment, folder)
    return 0


def _unlock(log: Path, config: Path) -> None:
    """Remove the lock of a Snakemake that was killed. Raises UserError where one works in this folder."""
    if not any(Path(".snakemake", "locks").glob("*.lock")):
        return
    from cotdistill.orchestration.doctor.local import find_snakemakes

    if running := find_snakemakes():
        raise UserError(
            f"a snakemake works in this folder (process {running[0]}); wait for it, or stop it: "
            f"kill {running[0]}"
        )
    print("an earlier snakemake was killed here: removing its lock", flush=True)
    if _run_snakemake(["--configfile", str(config), "--unlock"], log):
        raise UserError(f"snakemake --unlock failed: see {log}")


def _make_environment() -> dict[str, str]:
    # the rules call `cotdistill` by name: find the one of this environment first
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    cache = make_cache_environment(Path(".snakemake", "cache"))
    return {**os.environ, **cache, "PATH": path, "PYTHONIOENCODING": "utf-8"}  # its output is our log


def _run_snakemake(arguments: list[str], log: Path) -> int:
    with open(log, "w", encoding="utf-8") as handle:
        command = [sys.executable, "-m", "snakemake", *arguments]
        environment = _make_environment()
        return subprocess.run(command, stdout=handle, stderr=subprocess.STDOUT, env=environment).returncode


def _watch(experiment: Experiment, arguments: list[str], log: Path) -> int:
    """Run Snakemake, its output in `log`, with a line of progress: live on a terminal, else now and then."""
    live = sys.stdout.isatty()
    with open(log, "w", encoding="utf-8") as handle:
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments],
            stdout=handle, stderr=subprocess.STDOUT, env=_make_environment(),
        )
        started, shown = time.monotonic(), 0.0
        first = sum(status.step for status in list_statuses(experiment))
        try:
            while process.poll() is None:
                time.sleep(0.5)
                elapsed = time.monotonic() - started
                if elapsed - shown >= (1.0 if live else EVERY):
                    shown = elapsed
                    text = format_line(list_statuses(experiment), elapsed, first)
                    print(f"\r\x1b[2K{text}" if live else text, end="" if live else "\n", flush=True)
        except KeyboardInterrupt:
            # the terminal sent the signal to Snakemake too: let it stop its jobs and unlock the folder
            process.wait()
        if live and shown:
            print()
    return process.returncode


def _explain(folder: Path, log: Path, started: float) -> None:
    """Say what failed: the error line of each job that ended with one, else the end of Snakemake's log."""
    found = []
    for path in sorted((folder / "logs").rglob("*.log")):
        if path.stat().st_mtime >= started and path != log:
            lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            # libraries may still speak after it, while the process ends
            said = [line for line in lines if line.startswith("error: ")]
            if said:
                found.append(f"{path}: {said[-1].removeprefix('error: ')}")
    if not found:
        found = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    print("\n".join(["error: the grid did not finish:", *found]), file=sys.stderr)


def _print_partial(experiment: Experiment, folder: Path) -> None:
    """Print what Snakemake's `onerror` made of the finished runs, if it came to that."""
    from cotdistill.orchestration.partial import OUT_OF_DATE
    from cotdistill.report.comparison import summarize

    table = folder / "tables" / "comparison.md"
    if table.is_file() and table.stat().st_mtime == OUT_OF_DATE:
        print(summarize(experiment))
        print(f"table    {table} (names the missing runs)")
        print(f"\n{table.with_name('verdict.txt').read_text(encoding='utf-8')}", end="")


def _print_results(experiment: Experiment, folder: Path) -> None:
    from cotdistill.report.comparison import summarize

    print(summarize(experiment))
    print(f"table    {folder / 'tables' / 'comparison.md'} (also .html, .csv, .tex)")
    for figure in sorted((folder / "figures").glob("*.png")):
        print(f"figure   {figure} (also .pdf)")
    print(f"report   {folder / 'report.html'}")
    store = experiment.tracking.uri or f"sqlite:///{Path(experiment.results, 'mlflow.db')}"
    print(f"MLflow   {store} (`make mlflow` opens it)")
    print(f"\n{(folder / 'tables' / 'verdict.txt').read_text(encoding='utf-8')}", end="")

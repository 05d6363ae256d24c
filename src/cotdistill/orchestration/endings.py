"""Say in plain sentences why a grid did not finish, what is saved, and how it goes on."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from pathlib import Path

from cotdistill.config.models import Experiment
from cotdistill.orchestration.progress import list_statuses
from cotdistill.orchestration.snakemake import list_failed_logs

INTERRUPTED = "error: interrupted"
"""last line of a job that Ctrl-C ended: nothing that failed"""


def explain_failure(folder: Path, log: Path, started: float) -> None:
    """Say what failed: the last words of each job that did, else the end of Snakemake's log."""
    found = find_failures(folder, log, started)
    if not found:
        found = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    print("\n".join(["error: the grid did not finish:", *found]), file=sys.stderr)


def explain_stop(
    experiment: Experiment, log: Path, config: Path, cores: int | None, started: float
) -> None:
    """Say that the grid was stopped, after what had failed before: what is saved, and how to go on.

    log: of the Snakemake that ran it.
    """
    failures = find_failures(experiment.folder, log, started)
    counts = Counter(status.state for status in list_statuses(experiment))
    words = {
        "trained": "trained and to be evaluated", "stopped": "to go on from their saved state",
        "running": "still ending", "failed": "failed", "waiting": "not begun",
    }  # fmt: skip
    told = [f"{counts['done']} of {counts.total()} runs done"]
    told += [f"{counts[state]} {text}" for state, text in words.items() if counts[state]]
    line = f"stopped: {', '.join(told)}"
    goes_on = f"nothing of that is lost; the same command goes on: {name_command(config, cores)}"
    print("\n".join([*failures, line, goes_on]), file=sys.stderr, flush=True)


def name_command(config: Path, cores: int | None) -> str:
    """Return the command line of this call, to be typed again."""
    program = Path(sys.argv[0])
    # `python -m cotdistill`, which is a file of the package for Python
    words = ["python", "-m", "cotdistill"] if program.name == "__main__.py" else [str(program)]
    if str(program.parent) in os.environ.get("PATH", "").split(os.pathsep):
        words = [program.name]
    options = ["--cores", str(cores)] if cores else []
    return shlex.join([*words, "reproduce", "--config", str(config), *options])


def find_failures(folder: Path, log: Path, started: float) -> list[str]:
    """Return a line for each job of this call that failed: its log, and the error in it."""
    found: dict[Path, str] = {}
    for path in sorted((folder / "logs").rglob("*.log")):
        if path.stat().st_mtime < started or path.name.startswith("snakemake") or path == log:
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        # libraries may still speak after it, while the process ends
        said = [line for line in lines if line.startswith("error: ")]
        if said and said[-1] != INTERRUPTED:
            found[path] = said[-1].removeprefix("error: ")
    for path in list_failed_logs(log) if log.is_file() else []:
        if path not in found:
            found |= _describe_silent(path)
    return [f"{path}: {text}" for path, text in found.items()]


def _describe_silent(path: Path) -> dict[Path, str]:
    """Return the last line of a job that ended without an error of its own; {} where it was asked to stop."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    last = text.strip().splitlines()[-1:]
    if last and (last[0] == INTERRUPTED or last[0].startswith("stopped: ")):
        return {}
    cause = "ended without an error of its own (killed, or out of memory?)"
    return {path: f"{cause}; its last line: {last[0]}" if last else cause}


def describe_store(experiment: Experiment) -> str:
    """Return where the MLflow store is, and the command that opens it."""
    uri = experiment.tracking.uri
    if uri is None:
        name = f" RESULTS={shlex.quote(experiment.results)}" if experiment.results != "results" else ""
        return f"sqlite:///{Path(experiment.results, 'mlflow.db')} (`make mlflow{name}` opens it)"
    if uri.startswith(("http://", "https://")):
        return f"{uri} (open it in a browser)"
    return f"{uri} (`mlflow ui --backend-store-uri {shlex.quote(uri)}` opens it)"

"""List the experiments of a results folder, and how far each is."""

from __future__ import annotations

import shlex
from pathlib import Path

from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.orchestration.progress import format_counts, format_table, list_statuses
from cotdistill.runs.experiment import load


def describe_all(results: Path, everything: bool = False) -> str:
    """Return the experiments of a results folder for a person: a line each, and how to see more of one.

    everything: a line for each of their runs too.
    """
    if not results.is_dir():
        return f"no experiments: there is no folder {results} here; --config names an experiment's config"
    folders = sorted(path.parent for kind in ("grid.json", "runs") for path in results.glob(f"*/{kind}"))
    lines = [_describe(folder, everything) for folder in dict.fromkeys(folders)]
    return "\n".join(lines or [f"no experiments in {results}; --config names an experiment's config"])


def _describe(folder: Path, everything: bool) -> str:
    grid = folder / "grid.json"
    if not grid.is_file():
        return f"{folder.name}: no {grid} (Snakemake writes it when it starts); name its config: --config"
    try:
        # the folder may have been moved: it is looked at where it lies
        experiment: Experiment = load(grid).model_copy(
            update={"results": str(folder.parent), "experiment": folder.name}
        )
        found = list_statuses(experiment)
    except UserError as error:
        return f"{folder.name}: {error}"
    if everything:
        return format_table(found, everything)
    return f"{format_counts(found)}\n  more: cotdistill status --config {shlex.quote(str(grid))}"

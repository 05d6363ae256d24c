"""What MLflow gets of a finished run: its times, tags and metrics, and a digest of all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from cotdistill.config.grid import AXES, Run
from cotdistill.errors import UserError
from cotdistill.files import digest, file_sha256, read_json
from cotdistill.results.collect import history_rows, result_row

ARTIFACTS = ("config.json", "metrics.json", "environment.json", "predictions.jsonl")
FILES = (*ARTIFACTS, "history.jsonl")
# part of every digest: raise it when what is written of a run changes, and stores are brought up to date
LAYOUT = 1

# where a column of the table of results goes; the history keeps its own names (loss/..., valid/...)
FINAL = {
    "accuracy": "test/accuracy",
    "correct": "test/correct",
    "n_test": "test/n",
    "mean_confidence": "test/mean_confidence",
    "step": "selected/step",
    "valid_accuracy": "selected/valid_accuracy",
    "accuracy_published": "published/test_accuracy",
    "step_published": "published/step",
    "teacher_accuracy_train": "teacher/accuracy_train",
    "teacher_accuracy_valid": "teacher/accuracy_valid",
    "teacher_accuracy_test": "teacher/accuracy_test",
    "n_train": "data/n_train",
    "n_valid": "data/n_valid",
    "wall_s": "cost/wall_s",
    "evaluation_wall_s": "cost/evaluation_wall_s",
    "peak_memory_mb": "cost/peak_memory_mb",
}
SERIES = {
    "learning_rate": "training/learning_rate",
    "gradient_norm": "training/gradient_norm",
    "examples_per_second": "training/examples_per_second",
}


@dataclass(frozen=True)
class Finished:
    """A finished run: its row of results, its times (ms since 1970), its role and its content's digest."""

    run: Run
    row: dict[str, Any]
    start: int
    end: int
    role: str
    digest: str

    @property
    def tags(self) -> dict[str, str]:
        """What is known of the run and every other seed of its cell, to search and group by."""
        tags = tags_of(self.run)
        for column, names in {
            "git_commit": ("git_commit", "mlflow.source.git.commit"),
            "data_checksum": ("data_checksum",),
        }.items():
            if self.row[column]:
                tags |= dict.fromkeys(names, self.row[column])
        return tags


def cell_of(run: Run) -> str:
    """The run's id without the seed."""
    return run.id.rsplit("/", 1)[0]


def tags_of(run: Run) -> dict[str, str]:
    """The tags that follow from the config alone, shared by all seeds of a cell."""
    tags = {axis: str(run.axes[axis]) for axis in AXES if axis != "seed"}
    return tags | {
        "role": _role(run),
        "objective": run.method.method,
        "mlflow.source.name": "cotdistill",
    }


def read(run: Run) -> Finished | None:
    """The run's content, or None when it has not finished. Raises UserError on a corrupt folder."""
    # the digest is taken first: if a file is replaced while it is read, the digest stays behind what
    # is written, and the next call writes the run again
    hashes = {name: _sha256(run.folder / name) for name in FILES}
    row = result_row(run)
    if row["status"] == "missing":
        return None
    for name, found in hashes.items():
        if found is None:
            raise UserError(f"{run.folder / name}: no such file, though the run has a metrics.json")
    file = run.folder / "environment.json"
    environment = read_json(file)
    start, end = (_milliseconds(environment, key, file) for key in ("started_at", "finished_at"))
    role = _role(run)
    content = digest({"layout": LAYOUT, "run": run.id, "role": role, "files": hashes})
    return Finished(run, row, start, end, role, content)


def metrics_of(item: Finished) -> list[Metric]:
    """Final numbers and the series of a run.

    A history has steps and no clock, and MLflow wants a time for each value: the times are spread
    evenly over the run by step.
    """
    history = history_rows(item.run)
    last = max((line["step"] for line in history), default=0) or 1
    metrics = []
    for line in history:
        moment = item.start + (item.end - item.start) * line["step"] // last
        name = SERIES.get(line["metric"], line["metric"])
        metrics.append(Metric(name, line["value"], moment, line["step"]))
    for column, name in FINAL.items():
        value = float(item.row[column])
        if not math.isnan(value):
            metrics.append(Metric(name, value, item.end, int(item.row["step"])))
    return metrics


def _role(run: Run) -> str:
    if run.method.name == run.experiment.baseline:
        return "baseline"
    return "proposed" if run.method.method == "mi" else "other"


def _sha256(file: Path) -> str | None:
    try:
        return file_sha256(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error


def _milliseconds(environment: dict[str, Any], key: str, file: Path) -> int:
    try:
        moment = datetime.fromisoformat(str(environment.get(key)))
    except ValueError as error:
        found = environment.get(key)
        raise UserError(f"{file}: '{key}': expected an ISO date and time, found {found!r}") from error
    return int(moment.timestamp() * 1000)

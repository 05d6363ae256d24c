"""What MLflow gets of a finished run: its times, tags and metrics, and a digest of all of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, file_sha256, read_json
from cotdistill.methods import METHODS, mi
from cotdistill.runs.grid import AXES, Run
from cotdistill.tables.collect import history_rows, result_row
from cotdistill.tables.measures import flat

ARTIFACTS = ("config.json", "metrics.json", "environment.json", "predictions.jsonl")
FILES = (*ARTIFACTS, "history.jsonl")
# part of every digest: raise it when what is written of a run changes, and stores are brought up to date
LAYOUT = 2

# Metric names have their group before the last slash: MLflow's charts make a section of each group.
# Where a column of the table of results goes; the history keeps its own names (loss/..., valid/..., mi/...)
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
CONTEXTS = {"train": "training", "valid": "validation", "test": "test"}
"""what MLflow calls the use of each split"""
DIGEST_LENGTH = 36
"""the longest digest of a dataset that MLflow takes"""


@dataclass(frozen=True)
class Finished:
    """A finished run: its role, the digest of its content, and the content, read when it is asked for.

    Reading the content raises UserError on a corrupt folder. The digest was taken before: if a file is
    replaced meanwhile, the digest stays behind what is written, and the next call writes the run again.
    """

    run: Run
    role: str
    digest: str

    @cached_property
    def row(self) -> dict[str, Any]:
        """The run's row of the table of results, by column."""
        found = result_row(self.run)
        if found["status"] == "missing":
            raise UserError(f"{self.run.folder}: its metrics.json has gone while the runs were read")
        return found

    @cached_property
    def measures(self) -> dict[str, float]:
        """What was measured beside the accuracy, by flat name."""
        return flat(read_json(self.run.files.metrics))

    @cached_property
    def start(self) -> int:
        """When training began, in ms since 1970."""
        return self._milliseconds("started_at")

    @cached_property
    def end(self) -> int:
        """When training ended, in ms since 1970."""
        return self._milliseconds("finished_at")

    def check(self) -> None:
        """Read all of the content but the series. Raises UserError on a corrupt folder."""
        _ = self.row, self.measures, self.start, self.end

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

    def _milliseconds(self, key: str) -> int:
        file = self.run.files.environment
        found = read_json(file).get(key)
        try:
            moment = datetime.fromisoformat(str(found))
        except ValueError as error:
            raise UserError(f"{file}: '{key}': expected an ISO date and time, found {found!r}") from error
        return int(moment.timestamp() * 1000)


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
    """The run with its content's digest, or None when it has not finished. Raises UserError."""
    hashes = {name: _sha256(run.folder / name) for name in FILES}
    if hashes["metrics.json"] is None:
        return None
    for name, found in hashes.items():
        if found is None:
            raise UserError(f"{run.folder / name}: no such file, though the run has a metrics.json")
    role = _role(run)
    # with the hash of the settings: a folder of other settings must not pass for one that is known
    content = digest({"layout": LAYOUT, "run": run.id, "hash": run.hash, "role": role, "files": hashes})
    return Finished(run, role, content)


def metrics_of(item: Finished) -> list[Metric]:
    """Final numbers and the series of a run.

    A history has steps and no clock, and MLflow wants a time for each value: the times are spread
    evenly over the run by step.
    """
    history = history_rows(item.run)
    last = max((line["step"] for line in history), default=0) or 1
    metrics, series = [], set()
    for line in history:
        moment = item.start + (item.end - item.start) * line["step"] // last
        name = SERIES.get(line["metric"], line["metric"])
        series.add(name)
        metrics.append(Metric(name, line["value"], moment, line["step"]))
    for name, value in final_of(item).items():
        # a measure of the finished run is no point of the series that has its name
        name = f"{name}/final" if name in series else name
        metrics.append(Metric(name, value, item.end, int(item.row["step"])))
    return metrics


def final_of(item: Finished) -> dict[str, float]:
    """The numbers of the finished run by metric name: columns of its row, then its measures."""
    row = {name: float(item.row[column]) for column, name in FINAL.items()}
    return {name: value for name, value in {**row, **item.measures}.items() if not math.isnan(value)}


def inputs_of(item: Finished) -> list[DatasetInput]:
    """The splits that the run stands on, as MLflow's inputs; the digest is that of the whole dataset.

    MLflow keeps one dataset for each name and digest, so a split is a dataset of its own.
    """
    found = item.row["data_checksum"]
    if not found:
        return []
    run = item.run
    source = json.dumps({"uri": str(run.prepared.absolute()), "adapter": run.dataset.adapter})
    inputs = []
    for split, context in CONTEXTS.items():
        dataset = Dataset(f"{run.dataset.name}-{split}", found[:DIGEST_LENGTH], "local", source)
        tags = {"mlflow.data.context": context}
        if split == "train":
            tags |= {"fraction": f"{run.fraction:g}", "labels": run.labels}
        inputs.append(DatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()]))
    return inputs


def _role(run: Run) -> str:
    if run.method.name == run.experiment.baseline:
        return "baseline"
    return "proposed" if issubclass(METHODS.module(run.method.method).METHOD, mi.MI) else "other"


def _sha256(file: Path) -> str | None:
    try:
        return file_sha256(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error

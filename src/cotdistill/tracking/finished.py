"""Gather what MLflow gets of a finished run: its times, tags and metrics, and a digest of all of it.

All comes from the run's rows of the experiment's tables. They are read from the tables' files or, for a run
that finished a moment ago, built from its folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, read_sealed
from cotdistill.config.models import Experiment
from cotdistill.runs.folder import RunFiles
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.collect import (
    Ratings,
    build_history_rows,
    build_measure_rows,
    build_result_row,
    read_results,
)
from cotdistill.tables.columns import CELL, HISTORY_COLUMNS, MEASURE_COLUMNS, RESULT_COLUMNS, get_role
from cotdistill.tables.store import Tables, to_frame

# part of every digest: raise it when what is written of a run changes, and stores are brought up to date
LAYOUT = 5

# Metric names have their group before the last slash: MLflow's charts make a section of each group.
# Where a column of the table of results goes; the history keeps its own names (loss/..., valid/..., ...)
FINAL = {
    "accuracy": "test/accuracy",
    "correct": "test/correct",
    "n_test": "test/n",
    "n_groups": "test/groups",
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


class ChangedError(UserError):
    """A run whose folder is no longer what the tables tell of it."""


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run of the grid with its rows of the tables."""

    run: Run
    row: Mapping[str, Any]
    """of the table of results, by column"""
    history: pd.DataFrame
    """its rows of the table of the history"""
    measures: Mapping[str, float]
    """what was measured beside the accuracy, by name"""

    @property
    def role(self) -> str:
        """What its method is in the comparison: baseline, proposed or other."""
        return get_role(self.row["method"], self.row["proposed"], self.run.experiment.baseline)

    @cached_property
    def digest(self) -> str:
        """Digest of all that is written of the run; its folder may move without a change."""
        # the content is that of the whole folder, the hash of the settings included
        about = {"run": self.run.id, "content": self.row["content"], "role": self.role}
        return digest({"layout": LAYOUT, **about, "measures": dict(self.measures)})

    @cached_property
    def start(self) -> int:
        """When training began, in ms since 1970."""
        return self._milliseconds("started_at")

    @cached_property
    def end(self) -> int:
        """When training ended, in ms since 1970."""
        return self._milliseconds("finished_at")

    @property
    def artifacts(self) -> tuple[Path, ...]:
        """The files of the folder that MLflow gets a copy of."""
        return list_artifacts(self.run.files)

    def check(self) -> None:
        """Raise UserError where the run cannot be written as the tables tell it (ChangedError)."""
        _ = self.start, self.end
        file = self.run.files.metrics
        found = digest(read_sealed(file, "collect again")) if file.exists() else None
        if found != self.row["content"]:
            fault = "changed since it was collected" if found else "no such file, though it was collected"
            raise ChangedError(f"{file}: {fault}; collect again")

    @property
    def tags(self) -> dict[str, str]:
        """What is known of the run and every other seed of its cell, to search and group by."""
        tags = build_tags(self.row, self.role)
        for column, names in {
            "git_commit": ("git_commit", "mlflow.source.git.commit"),
            **{column: (column,) for column in ("data_checksum", "ids_train", "ids_valid", "ids_test")},
        }.items():
            if not pd.isna(self.row[column]):
                tags |= dict.fromkeys(names, self.row[column])
        return tags

    def _milliseconds(self, column: str) -> int:
        found = self.row[column]
        try:
            moment = datetime.fromisoformat(str(found))
        except ValueError as error:
            file = self.run.files.environment
            raise UserError(f"{file}: '{column}': expected an ISO date and time, found {found!r}") from error
        return int(moment.timestamp() * 1000)


def select_finished(experiment: Experiment) -> list[FinishedRun]:
    """Return the finished runs of the grid as the tables tell them, in the order of the grid.

    Raises UserError when a table is absent or corrupt, or of another config.
    """
    tables, runs = Tables(experiment), {run.id: run for run in expand(experiment)}
    found = {row["run"]: row for row in _split_rows(tables.results)}
    history = dict(iter(tables.history.groupby("run", sort=False)))
    measures = dict(iter(tables.measures.groupby("run", sort=False)))
    return [
        FinishedRun(
            run,
            row,
            history.get(run_id, tables.history.head(0)),
            _key_by_name(measures.get(run_id, tables.measures.head(0))),
        )
        for run_id, run in runs.items()
        if (row := found.get(run_id)) and row["status"] == "done" and _is_current(run, row)
    ]


def _is_current(run: Run, row: Mapping[str, Any]) -> bool:
    if row["config_hash"] != run.hash:
        raise UserError(
            f"{run.id}: the tables are of another config ({row['config_hash']}, expected {run.hash}); "
            "collect again"
        )
    return True


def read_finished(run: Run, ratings: Ratings) -> FinishedRun | None:
    """Return a run as its folder tells it; None when it has not finished. Raises UserError.

    ratings: what the judge gave. The digest is that of the metrics, which are read first: if a file is
    replaced meanwhile, the digest stays behind what is written, and the next look finds another one.
    """
    found = read_results(run, other_config_is_missing=True)
    if found is None:
        return None
    (row,) = _split_rows(to_frame([build_result_row(run, found)], RESULT_COLUMNS))
    measures = to_frame(build_measure_rows(run, found.metrics, ratings), MEASURE_COLUMNS)
    history = to_frame(build_history_rows(run), HISTORY_COLUMNS)
    return FinishedRun(run, row, history, _key_by_name(measures))


def _split_rows(results: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in results.to_dict("records"):
        yield {str(column): value for column, value in row.items()}


def _key_by_name(measures: pd.DataFrame) -> dict[str, float]:
    both = zip(measures["measure"], measures["value"], strict=True)
    return {str(name): float(value) for name, value in both}


def list_artifacts(files: RunFiles) -> tuple[Path, ...]:
    """Return the files of a run's folder that MLflow gets a copy of."""
    return files.config, files.metrics, files.environment, files.predictions


def get_cell(run_id: str) -> str:
    """Return the id of a run's cell: its own without the seed."""
    return run_id.rsplit("/", 1)[0]


def build_tags(row: Mapping[str, Any], role: str) -> dict[str, str]:
    """Return the tags that follow from the config alone, shared by all seeds of a cell.

    row: of the table of results, of a finished run or of one that is missing.
    """
    tags = {axis: str(row[axis]) for axis in CELL} | {"split": row["split"]}
    return tags | {"role": role, "objective": row["objective"], "mlflow.source.name": "cotdistill"}


def build_metrics(item: FinishedRun) -> list[Metric]:
    """Return the final numbers and the series of a run.

    A history has steps and no clock, and MLflow wants a time for each value: the times are spread
    evenly over the run by step.
    """
    history = item.history
    last = int(history["step"].max()) if len(history) else 0
    metrics, series = [], set()
    for key, step, value in zip(history["metric"], history["step"], history["value"], strict=True):
        if math.isnan(value):  # not measured at this step, or not finite: the series has no point there
            continue
        moment = item.start + (item.end - item.start) * int(step) // (last or 1)
        name = SERIES.get(key, key)
        series.add(name)
        metrics.append(Metric(name, float(value), moment, int(step)))
    for name, value in select_final(item).items():
        # a measure of the finished run is no point of the series that has its name
        name = f"{name}/final" if name in series else name
        metrics.append(Metric(name, value, item.end, int(item.row["step"])))
    return metrics


def select_final(item: FinishedRun) -> dict[str, float]:
    """Return the numbers of the finished run by metric name: columns of its row, then its measures."""
    row = {name: item.row[column] for column, name in FINAL.items()}
    known = {name: float(value) for name, value in row.items() if not pd.isna(value)}
    return known | {name: value for name, value in item.measures.items() if not math.isnan(value)}


def build_inputs(item: FinishedRun) -> list[DatasetInput]:
    """Return the splits that the run was made from, as MLflow's inputs, with the whole dataset's digest.

    MLflow keeps one dataset for each name and digest, so a split is a dataset of its own.
    """
    row = item.row
    if pd.isna(row["data_checksum"]):
        return []
    source = json.dumps({
        "uri": str(item.run.prepared.absolute()), "adapter": row["adapter"], "split": row["split"],
    })  # fmt: skip
    inputs = []
    for split, context in CONTEXTS.items():
        name = f"{row['dataset']}-{split}"
        dataset = Dataset(name, row["data_checksum"][:DIGEST_LENGTH], "local", source)
        tags = {"mlflow.data.context": context}
        if split == "test":
            tags |= {"examples": str(row["n_test"]), "groups": str(row["n_groups"])}
        if split == "train":
            tags |= {"fraction": f"{row['fraction']:g}", "labels": row["labels"]}
        inputs.append(DatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()]))
    return inputs

"""Expand an experiment to its runs: one for each cell of the grid and seed, with resolved settings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cotdistill.common.errors import make_unknown_error
from cotdistill.common.files import digest
from cotdistill.config.models import CellFilter, DatasetEntry, Experiment, MethodEntry, StudentEntry, Training
from cotdistill.methods import resolve_settings
from cotdistill.runs.folder import RunFiles

ASKED_LATER = {"rationales", "bins", "option_score", "judge", "free_running"}
"""evaluation settings on which nothing of training depends"""
AXES = ("dataset", "student", "method", "labels", "fraction", "seed")


@dataclass(frozen=True)
class Run:
    """One training run: a cell of the grid and a seed."""

    experiment: Experiment
    dataset: DatasetEntry
    student: StudentEntry
    method: MethodEntry
    labels: str
    fraction: float
    seed: int

    @cached_property
    def axes(self) -> dict[str, Any]:
        """The values that identify the run, by axis."""
        return {
            "dataset": self.dataset.name,
            "student": self.student.name,
            "method": self.method.name,
            "labels": self.labels,
            "fraction": self.fraction,
            "seed": self.seed,
        }

    @property
    def repetition(self) -> dict[str, Any]:
        """The axes that decide initial weights, order of examples and dropout: the same for every method."""
        return {axis: self.axes[axis] for axis in ("dataset", "student", "seed")}

    @cached_property
    def id(self) -> str:
        """`dataset/student/method/labels/fraction/seed`: the run's path below `runs/`."""
        return "/".join(_format_part(value) for value in self.axes.values())

    @cached_property
    def folder(self) -> Path:
        """Where everything of this run lands."""
        return self.experiment.folder / "runs" / self.id

    @cached_property
    def files(self) -> RunFiles:
        """The files of the folder, by what they hold."""
        return RunFiles(self.folder)

    @cached_property
    def state(self) -> Path:
        """Where training keeps what it resumes from; another config's state lies beside it, untouched."""
        return self.files.states / self.hash

    @cached_property
    def prepared(self) -> Path:
        """The tokenised data and the student's tokenizer, shared by all runs of the pair."""
        return find_prepared_folder(self.experiment, self.dataset.name, self.student.name)

    @cached_property
    def training(self) -> Training:
        """The training settings after the overrides of the dataset, then of the student."""
        settings = self.experiment.training.model_dump()
        for overrides in (self.dataset.training, self.student.training):
            settings.update(overrides.model_dump())
        return Training.model_validate(settings)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting that the run's numbers depend on, and nothing else."""
        dataset = self.dataset.model_dump(exclude={"training", "name"})
        student = self.student.model_dump(exclude={"training", "name"})
        student["compute"] = {"threads": self.student.compute.threads}
        return {
            **self.axes,
            "dataset_settings": dataset,
            "student_settings": student,
            "method_settings": {"method": self.method.method, **resolve_settings(self.method)},
            "training": self.training.model_dump(exclude={"checkpoint_every", "checkpoint_minutes", "keep"}),
            "evaluation": self.experiment.evaluation.model_dump(exclude=ASKED_LATER),
        }

    @cached_property
    def hash(self) -> str:
        """Digest of `config`: state written under another hash is not this run's."""
        return digest(self.config)


def _format_part(value: Any) -> str:
    """Return a value as a folder name: `1` for 1.0, and no two values alike."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def find_prepared_folder(experiment: Experiment, dataset: str, student: str) -> Path:
    """Return the folder of one (dataset, student) pair's tokenised data."""
    return experiment.folder / "prepared" / dataset / student


def expand(experiment: Experiment) -> list[Run]:
    """Return the runs of the grid, in the order of the axes, after include and exclude."""
    cells = itertools.product(
        experiment.datasets,
        experiment.students,
        experiment.methods,
        experiment.labels,
        experiment.fractions,
        experiment.seeds,
    )
    runs = [Run(experiment, *cell) for cell in cells]
    keep = experiment.include
    return [
        run
        for run in runs
        if (keep is None or any(_is_match(run, f) for f in keep))
        and not any(_is_match(run, f) for f in experiment.exclude)
    ]


def find(experiment: Experiment, run_id: str) -> Run:
    """Return the run with this id. Raises UserError that names the near id."""
    runs = {run.id: run for run in expand(experiment)}
    if run_id not in runs:
        raise make_unknown_error("run", run_id, runs)
    return runs[run_id]


def _is_match(run: Run, cell: CellFilter) -> bool:
    return all(
        wanted is None or run.axes[axis] in wanted for axis, wanted in cell.model_dump().items()
    )

"""Read a config file and check everything about it before the first job."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError, list_some, make_unknown_error, show_value
from cotdistill.config.models import CellFilter, Experiment
from cotdistill.config.names import find_alike
from cotdistill.config.validation import validate
from cotdistill.config.yaml_files import copy_plain, read_config_file
from cotdistill.data.adapters import ADAPTERS
from cotdistill.methods import METHODS, resolve_settings
from cotdistill.runs import limits
from cotdistill.runs.grid import expand


def load(path: Path | str) -> Experiment:
    """Read a YAML (or JSON) config file. Raises UserError naming the file, the key and the fault."""
    return parse(read_config_file(path), str(path))


def parse(value: Any, where: str) -> Experiment:
    """Check a config given as plain values; `where` names its source in errors."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected keys and values, found {type(value).__name__}")
    experiment = validate(Experiment, copy_plain(value, where), where)
    check(experiment, where)
    return experiment


def check(experiment: Experiment, where: str) -> None:
    """Check what the types cannot say: names that exist, no name twice, a grid that is not empty."""
    _check_results(experiment, where)
    names: dict[str, list[Any]] = {
        "datasets": [entry.name for entry in experiment.datasets],
        "students": [entry.name for entry in experiment.students],
        "methods": [entry.name for entry in experiment.methods],
        "labels": list(experiment.labels),
        "fractions": list(experiment.fractions),
        "seeds": list(experiment.seeds),
    }
    for axis, values in names.items():
        counts = Counter(values)
        twice = next((value for value in values if counts[value] > 1), None)
        if twice is not None:
            raise UserError(f"{where}: '{axis}': '{twice}' stands twice; give each entry its own name")
        alike = find_alike([value for value in values if isinstance(value, str)])
        if alike is not None:
            raise UserError(
                f"{where}: '{axis}': '{alike[0]}' and '{alike[1]}' differ in case alone, and are one folder "
                "to some file systems; give each entry its own name"
            )
    for number, dataset in enumerate(experiment.datasets):
        if dataset.adapter not in ADAPTERS.names():
            unknown = make_unknown_error("dataset", dataset.adapter, ADAPTERS.names())
            raise _at(f"{where}: 'datasets[{number}]'", unknown)
        if dataset.adapter == "custom" and dataset.path is None:
            key = f"datasets[{number}].path"
            raise UserError(f"{where}: '{key}': a custom dataset needs the folder of its files")
    for number, method in enumerate(experiment.methods):
        if method.method not in METHODS.names():
            unknown = make_unknown_error("method", method.method, METHODS.names())
            raise _at(f"{where}: 'methods[{number}]'", unknown)
        resolve_settings(method, f"{where}: methods[{number}]")
    known = {"dataset": names["datasets"], "student": names["students"], "method": names["methods"]}
    for key, cells in (("include", experiment.include or []), ("exclude", experiment.exclude)):
        for number, cell in enumerate(cells):
            _check_filter(cell, known, f"{where}: '{key}[{number}]'")
    for number, student in enumerate(experiment.students):
        if student.revision is not None and Path(str(student.pretrained)).is_dir():
            key = f"students[{number}].revision"
            raise UserError(f"{where}: '{key}': {student.pretrained} is a local folder, which has none")
    limits.check_grid(experiment, where)
    runs = expand(experiment)
    if not runs:
        raise UserError(f"{where}: the grid is empty: 'include' and 'exclude' leave no cell")
    _check_baseline(experiment.baseline, names["methods"], {run.method.name for run in runs}, where)
    for run in {(run.dataset.name, run.student.name): run for run in runs}.values():
        limits.check_settings(run, where)


def _check_results(experiment: Experiment, where: str) -> None:
    """Raise UserError where the results cannot be a folder, or cannot hold MLflow's store."""
    results = Path(experiment.results)
    for folder in (experiment.folder, results, *results.parents):
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise UserError(f"{where}: 'results': {folder} is there and is no folder")
    if experiment.tracking.uri is None and "?" in experiment.results:
        raise UserError(
            f"{where}: 'results': MLflow's SQLite store cannot be in a folder with '?' in its path "
            f"({show_value(experiment.results)}); choose another folder, or set tracking.uri"
        )


def _check_baseline(baseline: str, methods: list[str], left: set[str], where: str) -> None:
    """Raise UserError where the baseline is no method, or not one of those that are `left` in the grid."""
    if baseline not in methods:
        raise _at(f"{where}: 'baseline'", make_unknown_error("method", baseline, methods))
    if baseline not in left:
        raise UserError(
            f"{where}: 'baseline': 'include' and 'exclude' leave no cell of method '{baseline}' "
            f"(left: {', '.join(sorted(left))})"
        )


def describe_uncompared(experiment: Experiment) -> str:
    """Return in a line where methods have no baseline to be compared with; empty if there is one always."""
    methods: dict[tuple[Any, ...], set[str]] = {}
    for run in expand(experiment):
        block = (run.dataset.name, run.student.name, run.labels, f"{run.fraction:g}")
        methods.setdefault(block, set()).add(run.method.name)
    alone = ["/".join(block) for block, names in methods.items() if experiment.baseline not in names]
    if not alone:
        return ""
    return (
        f"the baseline '{experiment.baseline}' has no run for {list_some(alone, 3)}: the methods there are "
        "compared with nothing ('include' and 'exclude' decide it)"
    )


def _check_filter(cell: CellFilter, names: dict[str, list[Any]], where: str) -> None:
    for axis, known in names.items():
        for value in getattr(cell, axis) or []:
            if value not in known:
                raise _at(where, make_unknown_error(axis, value, known))


def _at(where: str, error: UserError) -> UserError:
    return UserError(f"{where}: {error}")

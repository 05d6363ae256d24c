"""Read a config file and check everything about it before the first job."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from cotdistill.common.errors import UserError, describe_error, make_unknown_error
from cotdistill.config.models import CellFilter, Experiment
from cotdistill.config.validation import validate
from cotdistill.data.adapters import ADAPTERS
from cotdistill.methods import METHODS, resolve_settings
from cotdistill.runs import limits
from cotdistill.runs.grid import expand


class _Loader(yaml.SafeLoader):
    """The safe loader, which lets the last of two equal keys win, made to refuse the second."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"key '{key.value}' stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


def load(path: Path | str) -> Experiment:
    """Read a YAML (or JSON) config file. Raises UserError naming the file, the key and the fault."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such config file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        fault = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise UserError(f"{place}: not valid YAML ({fault})") from error
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: not valid YAML ({describe_error(error)})") from error
    return parse(value, str(path))


def parse(value: Any, where: str) -> Experiment:
    """Check a config given as plain values; `where` names its source in errors."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected keys and values, found {type(value).__name__}")
    experiment = validate(Experiment, value, where)
    check(experiment, where)
    return experiment


def check(experiment: Experiment, where: str) -> None:
    """Check what the types cannot say: names that exist, no name twice, a grid that is not empty."""
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


def _check_baseline(baseline: str, methods: list[str], left: set[str], where: str) -> None:
    """Raise UserError where the baseline is no method, or not one of those that are `left` in the grid."""
    if baseline not in methods:
        raise _at(f"{where}: 'baseline'", make_unknown_error("method", baseline, methods))
    if baseline not in left:
        raise UserError(
            f"{where}: 'baseline': 'include' and 'exclude' leave no cell of method '{baseline}' "
            f"(left: {', '.join(sorted(left))})"
        )


def _check_filter(cell: CellFilter, names: dict[str, list[Any]], where: str) -> None:
    for axis, known in names.items():
        for value in getattr(cell, axis) or []:
            if value not in known:
                raise _at(where, make_unknown_error(axis, value, known))


def _at(where: str, error: UserError) -> UserError:
    return UserError(f"{where}: {error}")

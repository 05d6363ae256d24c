"""Read a config file and check everything about it before the first job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cotdistill.config.grid import check
from cotdistill.config.models import Experiment
from cotdistill.config.validation import validate
from cotdistill.errors import UserError


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
    return parse(value, str(path))


def parse(value: Any, where: str) -> Experiment:
    """Check a config given as plain values; `where` names its source in errors."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected keys and values, found {type(value).__name__}")
    experiment = validate(Experiment, value, where)
    check(experiment, where)
    return experiment

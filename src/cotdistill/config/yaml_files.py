"""Read a YAML (or JSON) config file into plain values; refuse what YAML would silently turn into others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cotdistill.common.errors import UserError, show_value

DEEPEST = 30
"""lists and mappings in one another; a config has six or so"""
MOST = 200_000
"""values of a file, each counted as often as aliases repeat it"""

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_KINDS = ("str", "int", "float", "bool", "null", "seq", "map", "merge", "timestamp")
_NUMBER = r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)"
_DIGITS = 40


class _Refused(yaml.MarkedYAMLError):
    """What is YAML, and is not taken in a config."""


def _refuse(place: Any, problem: str) -> _Refused:
    return _Refused(problem=problem, problem_mark=place.start_mark)


class _Loader(yaml.SafeLoader):
    """The safe loader, made to refuse what is read otherwise than it was meant, and what would not end.

    That is: a second key of one name (the last would win), keys that are no text, dates, numbers with a
    leading zero or a colon (010 would be 8, 1:30 would be 90), and nesting or aliases without bounds.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refuse(
                self.peek_event(), f"lists and mappings stand in one another more than {DEEPEST} deep"
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag.removeprefix("tag:yaml.org,2002:") not in _KINDS:
            raise _refuse(node, f"the tag {show_value(node.tag)} is not taken")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            text = show_value(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
            if key.tag not in (_TEXT, _MERGE):
                raise _refuse(key, f"key {text} is not text: put it in quotes")
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {text} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        value: str = node.value
        if len(value) > _DIGITS:
            raise _refuse(node, f"a number of {len(value)} characters; put text in quotes")
        whole = node.tag.endswith("int")
        read = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        if (whole and not re.fullmatch(_NUMBER, value)) or ":" in value:
            raise _refuse(node, f"to YAML {value} is the number {read}: write {read}, or put text in quotes")
        return read

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        raise _refuse(node, f"to YAML {show_value(node.value)[1:-1]} is a date: put it in quotes")


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_date)


def _count_values(
    node: yaml.Node, known: dict[int, tuple[int, int]], inside: frozenset[int] = frozenset()
) -> tuple[int, int]:
    """Return how many values a node stands for, and how deep they are. Raises _Refused above the bounds.

    known: what was found of nodes before, by their ids; aliases make one node stand in several places.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) in known:
        return known[id(node)]
    if id(node) in inside:
        raise _refuse(node, "an alias stands inside of what it stands for")
    pairs = isinstance(node, yaml.MappingNode)
    children = [child for item in node.value for child in item] if pairs else node.value
    count, depth = 1, 1
    for child in children:
        more, below = _count_values(child, known, inside | {id(node)})
        count, depth = count + more, max(depth, below + 1)
    if count > MOST or depth > DEEPEST:
        bound = f"{MOST} values" if count > MOST else f"{DEEPEST} values in one another"
        raise _refuse(node, f"with its aliases this is more than {bound}")
    known[id(node)] = count, depth
    return known[id(node)]


def read_config_file(path: Path | str) -> Any:
    """Return the values of a YAML (or JSON) file. Raises UserError naming file, line and fault."""
    shown = show_value(str(path), 4000)[1:-1]
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{shown}: no such config file") from error
    except (OSError, ValueError) as error:  # a ValueError: not UTF-8, or a NUL in the name
        raise UserError(f"cannot read {shown}: {error}") from error
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{shown}:{mark.line + 1}" if mark else shown
        fault = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise UserError(
            f"{place}: {fault}" if isinstance(error, _Refused) else f"{place}: not valid YAML ({fault})"
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, OverflowError) as error:
        # an explicit tag on text that is none of its values, as in `!!int "x"`
        raise UserError(f"{shown}: not valid YAML ({type(error).__name__})") from error


def copy_plain(value: Any, where: str) -> Any:
    """Return values of another reader as plain dicts and lists. Raises UserError where they are too deep."""
    left = [MOST]

    def copy(item: Any, depth: int) -> Any:
        left[0] -= 1
        if depth > DEEPEST or left[0] < 0:
            bound = f"{DEEPEST} values in one another" if depth > DEEPEST else f"{MOST} values"
            raise UserError(f"{where}: more than {bound}")
        if isinstance(item, dict):
            return {key: copy(inner, depth + 1) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [copy(inner, depth + 1) for inner in item]
        return item

    return copy(value, 1)

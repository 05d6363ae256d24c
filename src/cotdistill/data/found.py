"""Find files that look like a part of a dataset under a name that is not read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cotdistill.common.errors import UserError, list_some

SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing"),
}
"""the names under which data sets know the splits"""

_SPLITS = {name: split for split, names in SPLIT_NAMES.items() for name in names}
_DATA = re.compile(r"\.(json|jsonl|jsonlines|ndjson|csv|tsv|txt|parquet|arrow|xlsx?)$")
_PACKED = re.compile(r"\.(gz|bz2|xz|zst|zip)$")
# "train (1)", "train copy", "train-00000-of-00002"
_COPY = re.compile(r"( ?\([0-9]{1,4}\)|[ _-]*copy|[ _.-]*[0-9]{1,6}([_-]of[_-][0-9]{1,6})?)$")
_OUTPUTS = re.compile(r"([a-z]+)[ _-]?cot(?![a-z])")


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted: also those of links that lead nowhere.

    Raises UserError where the folder cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from error


def guess_split(name: str, prefix: str = "") -> str | None:
    """Return the split that a file's name stands for, in any case, form or copy; None where it is another's.

    prefix: what the names of the dataset's files begin with, such as `cqa_`.
    """
    bare = _PACKED.sub("", name.lower())
    if not _DATA.search(bare):
        return None
    stem = _COPY.sub("", _DATA.sub("", bare)).strip(" ._-")
    return _SPLITS.get(stem.removeprefix(prefix.lower()))


def find_strays(names: Iterable[str], split: str, read: Iterable[str], prefix: str = "") -> list[str]:
    """Return the names that stand for `split` but are not among those that are read."""
    known = set(read)
    return [name for name in names if name not in known and guess_split(name, prefix) == split]


def find_stray_outputs(names: Iterable[str], split: str, read: Iterable[str]) -> list[str]:
    """Return the names that look like teacher outputs of `split` but are not among those that are read."""
    known = set(read)
    return [
        name
        for name in names
        if name not in known and (match := _OUTPUTS.match(name.lower())) and _SPLITS.get(match[1]) == split
    ]


def check_presence(folder: Path, name: str, split: str, prefix: str = "") -> None:
    """Refuse a folder without the file `name` of a split. Raises UserError that names what is like it."""
    names = list_names(folder)
    if name not in names:
        near = find_strays(names, split, [], prefix)
        beside = f"; not read: {list_some(near, 3)}; expected '{name}'" if near else ""
        raise UserError(f"{folder / name}: no such file{beside}")


def describe_strays(folder: Path, strays: list[str], split: str, read: str | None) -> list[str]:
    """Return a line that `strays` of a split are not read, and what is read instead; none without strays."""
    if not strays:
        return []
    instead = f"only {read} is" if read else "its rows are cut from train"
    return [f"{folder}: not read as split '{split}': {list_some(strays, 3)} ({instead})"]

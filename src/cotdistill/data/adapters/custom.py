"""A dataset of your own: a folder with train.jsonl, test.jsonl and, if you like, valid.jsonl.

Columns `input`, `label` and `rationale` are required. Optional: `teacher_label` (default: empty, which
means that no teacher label is known), `options` (a list of texts that holds the label; default: an empty one,
an open label set), `group` (a text or whole number that examples which share a text have in common, in every
split; default, and where it is empty: none) and `id` (unique over the dataset; default: split and row
number). Other columns are not read; one that is nearly an optional column's name is refused.

Options may repeat one another, and rows with and without them may stand together. validation.jsonl,
val.jsonl and dev.jsonl are read as valid.jsonl is; two of these are refused. Without any, rows are cut from
train.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from cotdistill.common.errors import UserError, list_some
from cotdistill.data.adapter import Adapter, Record, read_records
from cotdistill.data.found import SPLIT_NAMES, check_presence, describe_strays, find_strays, list_names
from cotdistill.data.groups import name_group
from cotdistill.data.rows import Row, find_option_fault

REQUIRED = ("input", "label", "rationale")
OPTIONAL = ("teacher_label", "options", "group", "id")
OTHER_NAMES = {
    "teacher": "teacher_label", "llm_label": "teacher_label", "teacher_answer": "teacher_label",
    "choices": "options", "candidates": "options",
    "group_id": "group", "cluster": "group", "clusters": "group", "cluster_id": "group",
}  # fmt: skip
"""columns that other data sets have for an optional column"""


class Custom(Adapter):
    """A dataset in files of the user. The kind of answer is a setting, `text` by default."""

    name = "custom"
    answer = "text"
    licence = "yours to state"
    source = "the folder named in the experiment"
    needs_path = True

    def read(self, root: Path) -> dict[str, list[Row]]:
        """Return the splits in the folder `root`: train, test and, where there is a file of it, valid."""
        seen: set[str] = set()
        return {split: [_row(record, split, seen) for record in read_records(root / name)]
                for split, name in _find_files(root).items()}  # fmt: skip

    def find_unread(self, root: Path) -> list[str]:
        """Return a line about each file beside those that are read, and about each file's other columns."""
        found = []
        for split, name in _find_files(root).items():
            found += describe_strays(root, find_strays(list_names(root), split, [name]), split, name)
            records = read_records(root / name)
            columns = list(dict.fromkeys(column for record in records for column in record.fields))
            others = [f"'{column:.40}'" for column in columns if column not in (*REQUIRED, *OPTIONAL)]
            if others:
                found.append(f"{root / name}: columns that are not read: {list_some(others, 8)}")
        return found


def _find_files(root: Path) -> dict[str, str]:
    """Return the file of each split that is there. Raises UserError where one is missing or in doubt."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected train.jsonl and test.jsonl in it")
    check_presence(root, "train.jsonl", "train")
    check_presence(root, "test.jsonl", "test")
    names = list_names(root)
    valid = [name for each in SPLIT_NAMES["valid"] if (name := f"{each}.jsonl") in names]
    near = find_strays(names, "valid", valid)
    if len(valid) > 1:
        raise UserError(f"{root}: {' and '.join(valid)}; expected one file of the split 'valid'")
    if near and not valid:
        raise UserError(
            f"{root}: {list_some(near, 3)} is not read; expected 'valid.jsonl' (without such a file, 10% of "
            "train would be cut to validate)"
        )
    return {"train": "train.jsonl", **({"valid": valid[0]} if valid else {}), "test": "test.jsonl"}


def _row(record: Record, split: str, seen: set[str]) -> Row:
    _refuse_near_misses(record)
    identity = f"custom-{split}-{record.index}"
    if "id" in record.fields:
        identity = record.text("id", filled=True)
    if identity in seen:
        raise record.fault(f"column 'id': '{identity:.60}' stands twice; expected it unique over all splits")
    seen.add(identity)
    label = record.text("label", filled=True)
    options = record.texts("options") if "options" in record.fields else []
    if fault := find_option_fault(label, options):
        raise record.fault(fault)
    return Row(
        id=identity,
        input=record.text("input", filled=True),
        label=label,
        rationale=record.text("rationale"),
        teacher_label=record.text("teacher_label") if "teacher_label" in record.fields else "",
        options=options,
        group=_read_group(record),
    )


def _read_group(record: Record) -> str:
    """Return the name of the row's group: 3 and "3" are one; '' where it has none."""
    value = record.fields.get("group", "")
    if type(value) is int:  # `True` is an int to Python
        return name_group(str(value))
    if not isinstance(value, str):
        found = type(value).__name__
        raise record.fault(f"column 'group': expected text or a whole number, found {found}")
    return name_group(record.text("group").strip()) if "group" in record.fields else ""


def _refuse_near_misses(record: Record) -> None:
    """Refuse a column that is nearly the name of an optional one that is not there."""
    absent = [column for column in OPTIONAL if column not in record.fields]
    for name in record.fields:
        if name in REQUIRED or name in OPTIONAL:
            continue
        meant = _guess_column(name)
        if meant in absent:
            raise record.fault(
                f"unknown column '{name:.60}'; did you mean '{meant}'? Rename it, or leave it out"
            )


def _guess_column(name: str) -> str | None:
    """Return the optional column that a name is nearly that of, if any."""
    bare = re.sub(r"[\W_]", "", name.lower())
    plain = {column.replace("_", ""): column for column in OPTIONAL}
    others = {other.replace("_", ""): column for other, column in OTHER_NAMES.items()}
    # `id` is so short that many names are near it
    close = difflib.get_close_matches(bare, [key for key in plain if key != "id"], n=1, cutoff=0.85)
    return plain.get(bare) or others.get(bare) or (plain[close[0]] if close else None)


ADAPTER = Custom()

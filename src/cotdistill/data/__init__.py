"""Datasets with teacher rationales, by adapter name.

`load` gives a `datasets.DatasetDict` with the splits train, valid and test and the columns of
`cotdistill.data.adapter.Row`. The `datasets` library is imported when it is needed, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cotdistill.common.errors import UserError
from cotdistill.data.adapter import Adapter
from cotdistill.data.adapters import ADAPTERS
from cotdistill.data.groups import cut_disjoint
from cotdistill.data.release import resolve_root
from cotdistill.data.rows import COLUMNS, SPLITS
from cotdistill.data.splits import Accuracy, choose_subset, compute_checksum, cut_valid, measure_teacher
from cotdistill.data.survival import strip_row

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = [
    "COLUMNS", "SPLITS", "Accuracy", "adapter", "choose_subset", "compute_checksum", "find_unread", "load",
    "measure_teacher",
]  # fmt: skip


def adapter(name: str) -> Adapter:
    """Return the adapter of that name. Raises UserError that suggests the nearest name."""
    found: Adapter = ADAPTERS.module(name).ADAPTER
    return found


def load(
    name: str, root: Path | str | None = None, *, path: Path | str | None = None, disjoint: bool = False
) -> DatasetDict:
    """Return the splits train, valid and test of the adapter `name`, in memory.

    `root` is the data root, see `resolve_root`. `path` takes precedence over it: the folder of the files for
    `custom`, another data root for the others. Where the data has no validation split, one is cut from train
    as published, see `cut_valid`. disjoint: cut all rows anew, no group in two splits, see `cut_disjoint`.
    Without end tokens at the end of what is to be written, see `strip_row`. Raises UserError naming file and
    line of a fault.
    """
    from datasets import Dataset, DatasetDict, Features, Value

    source, folder = adapter(name), _find_folder(name, root, path)
    splits = source.read(folder)
    if "valid" not in splits:
        rows = splits["train"]
        train, valid = cut_valid(len(rows))
        splits |= {"train": [rows[index] for index in train], "valid": [rows[index] for index in valid]}
    extra = source.extra_train(folder)
    if disjoint:
        splits = cut_disjoint(splits, extra, name)
    else:
        splits["train"] = splits["train"] + extra

    for part, rows in splits.items():
        places = [f"dataset '{name}', {part} row '{row['id']}'" for row in rows]
        whole = (strip_row(row, place) for row, place in zip(rows, places, strict=True))
        splits[part] = [{**row, "group": row.get("group", "")} for row in whole]
    text = Value("string")
    features = Features({column: [text] if column == "options" else text for column in COLUMNS})
    return DatasetDict({part: Dataset.from_list(splits[part], features=features) for part in SPLITS})


def find_unread(name: str, root: Path | str | None = None, *, path: Path | str | None = None) -> list[str]:
    """Return a line about each file or column that looks like a part of the data and is not read by `load`.

    Arguments as for `load`, which must have succeeded before.
    """
    return adapter(name).find_unread(_find_folder(name, root, path))


def _find_folder(name: str, root: Path | str | None, path: Path | str | None) -> Path:
    needs_path = adapter(name).needs_path
    if needs_path and path is None:
        raise UserError(f"dataset '{name}': 'path' is missing; expected the folder of its files")
    return Path(path) if path and needs_path else resolve_root(path if path is not None else root)

"""Keep what the splits of a dataset share beside its prepared data, and say it in lines.

`overlap.json` is for a person and for the tables; no run depends on it. The students of one dataset have the
same one: it is measured once and copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_sealed, seal, write_json
from cotdistill.common.fingerprint import fingerprint
from cotdistill.data.overlap import MOST_LOOKED_AT, Inputs, Overlap, measure_overlap
from cotdistill.data.prepared import OVERLAP

if TYPE_CHECKING:
    from datasets import DatasetDict

TOLD = 0.05
"""share of a split's rows from which near duplicates are worth a warning; word for word, one row is"""
IN_WORDS = {
    "same": "word for word",
    "masked": "but for numbers",
    "body": "but for the last sentence",
    "near": "nearly",
    "grouped": "by group",
}
"""how an input stands in another split, by the kinds of `cotdistill.data.overlap`"""


def find_overlap(folder: Path, splits: DatasetDict, checksum: str) -> Overlap:
    """Return what the splits share: as measured before for this or another student, else measured now.

    folder: of the prepared pair, which need not exist. checksum: of the splits.
    """
    for other in sorted(folder.parent.glob(f"*/{OVERLAP}")):
        with suppress(UserError):  # what is corrupt is measured again
            if found := read_overlap(other.parent, checksum, fingerprint("data.overlap")):
                return found
    return measure_splits(splits)


def measure_splits(splits: DatasetDict) -> Overlap:
    """Return what the splits of a dataset share."""
    columns = {str(split): rows.select_columns(["id", "input", "group"])[:] for split, rows in splits.items()}
    return measure_overlap(
        {split: Inputs(own["id"], own["input"], own["group"]) for split, own in columns.items()}
    )


def write_overlap(folder: Path, overlap: Overlap, checksum: str) -> None:
    """Write what the splits with this checksum share into their prepared folder."""
    origin = {"checksum": checksum, "code": fingerprint("data.overlap")}
    write_json(folder / OVERLAP, seal({**asdict(overlap), **origin}))


def read_overlap(folder: Path, checksum: str, code: str | None = None) -> Overlap | None:
    """Return what the splits with this checksum share, measured by this code where one is given.

    None where the prepared folder does not tell: it is of other rows, or older than this measure. Raises
    UserError where the file is corrupt.
    """
    path = folder / OVERLAP
    if not path.exists():
        return None
    content = read_sealed(path, f"prepare again, or remove {path} to collect again")
    origin = content.pop("checksum", None), content.pop("code", None)
    if origin != (checksum, code or origin[1]):
        return None
    try:
        return TypeAdapter(Overlap).validate_python(content)
    except ValidationError:
        return None


def describe_overlap(overlap: Overlap) -> list[str]:
    """Return a line a split: its rows, and how many of them stand in the splits that are used before it."""
    lines = []
    for split, rows in overlap.rows.items():
        repeated = overlap.repeated[split]
        parts = [f"{split}: {rows} inputs, {f'{repeated} repeat another' if repeated else 'all different'}"]
        shared = [each for each in overlap.shared if each.split == split]
        parts += [f"in {each.other}: {format_counts(each.counts)}" for each in shared]
        lines.append("; ".join(parts))
    return lines


def list_overlap_warnings(dataset: str, overlap: Overlap) -> list[str]:
    """Return a line for each thing that makes the accuracy on test say less than it seems to."""
    return list(_list_warnings(f"dataset '{dataset}', test", overlap))


def _list_warnings(where: str, overlap: Overlap) -> Iterator[str]:
    if repeated := overlap.repeated["test"]:
        yield f"{where}: {repeated} of {overlap.rows['test']} inputs repeat another one of test"
    for each in overlap.shared:
        if each.split != "test":
            continue
        if each.near is None:
            yield (
                f"{where}: near duplicates in {each.other} were not counted: more than {MOST_LOOKED_AT:,} "
                "pairs of inputs have rare words in common, as where all are of one long template"
            )
        kind = "same" if each.same else "masked" if each.masked else "near"
        if (each.counts[kind] or 0) < (TOLD * each.rows if kind == "near" else 1):
            continue
        one, other = each.examples[kind]
        why = "by which checkpoints are chosen" if each.other == "valid" else "which students learn from"
        yield (
            f"{where}: {each.rows} inputs, of which in {each.other}, {why}: {format_counts(each.counts)} "
            f"(such as row '{one:.60}' as '{other:.60}')"
        )


def format_counts(counts: Mapping[str, int | None]) -> str:
    """Return the counts of inputs that stand in another split, by kind, as words; 'none' where all are 0."""
    return ", ".join(f"{counts[kind]} {words}" for kind, words in IN_WORDS.items() if counts[kind]) or "none"

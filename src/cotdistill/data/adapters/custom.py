"""A dataset of your own: a folder with train.jsonl, test.jsonl and, if you like, valid.jsonl.

Columns `input`, `label` and `rationale` are required. Optional: `teacher_label` (default: empty, which
means that no teacher label is known), `options` (a list of texts that holds the label; default: open
label set) and `id` (unique over the dataset; default: split and row number).
"""

from __future__ import annotations

from pathlib import Path

from cotdistill.common.errors import UserError
from cotdistill.data.adapter import Adapter, Record, read_records
from cotdistill.data.rows import Row


class Custom(Adapter):
    """A dataset in files of the user. The kind of answer is a setting, `text` by default."""

    name = "custom"
    answer = "text"
    licence = "yours to state"
    source = "the folder named in the experiment"
    needs_path = True

    def read(self, root: Path) -> dict[str, list[Row]]:
        """Return the splits in the folder `root`: train, test and, where its file exists, valid."""
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; expected train.jsonl and test.jsonl in it")
        names = [name for name in ("train", "valid", "test")
                 if name != "valid" or (root / "valid.jsonl").exists()]  # fmt: skip
        seen: set[str] = set()
        return {name: [_row(record, name, seen) for record in read_records(root / f"{name}.jsonl")]
                for name in names}  # fmt: skip


def _row(record: Record, split: str, seen: set[str]) -> Row:
    identity = f"custom-{split}-{record.index}"
    if "id" in record.fields:
        identity = record.text("id", filled=True)
    if identity in seen:
        raise record.fault(f"column 'id': '{identity:.60}' stands twice; expected it unique over all splits")
    seen.add(identity)
    label = record.text("label", filled=True)
    options = record.texts("options") if "options" in record.fields else []
    if options and label not in options:
        raise record.fault(f"column 'label': expected one of the options, found {label!r:.60}")
    return Row(
        id=identity,
        input=record.text("input", filled=True),
        label=label,
        rationale=record.text("rationale"),
        teacher_label=record.text("teacher_label") if "teacher_label" in record.fields else "",
        options=options,
    )


ADAPTER = Custom()

"""One (dataset, student) pair, parsed and tokenised once into Arrow and shared by every run.

A prepared folder holds `train.arrow`, `valid.arrow`, `test.arrow` (the public columns, and token ids of
input, label, teacher_label, rationale and options without special tokens), `tokenizer/`, `manifest.json`.
Ids carry no prefix and no end token, so one folder serves every method: tasks are put together from
them at training time. Preparing checks that this gives the very ids of the put-together text.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import (
    atomic,
    digest,
    file_sha256,
    read_sealed,
    sealed,
    tree_sha256,
    write_json,
)
from cotdistill.common.fingerprint import fingerprint

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from cotdistill.config.models import DatasetEntry, Experiment, StudentEntry

SPLITS = ("train", "valid", "test")
TOKENISED = ("input", "label", "teacher_label", "rationale")
CHUNK = 2_000
"""rows tokenised and written at once: bounds memory on e-SNLI's half a million rows"""


def prepare(experiment: Experiment, dataset: DatasetEntry, student: StudentEntry, folder: Path) -> bool:
    """Parse and tokenise a pair into `folder`, atomically; whether there was anything to do.

    What stands there is kept where it is sound and made by this code from the same rows and settings. Raises
    UserError on bad data or student.
    """
    from cotdistill import data, students
    from cotdistill.data.adapters import ADAPTERS
    from cotdistill.data.splits import data_checksum, teacher_accuracy

    answer = dataset.answer or ADAPTERS.module(dataset.adapter).ADAPTER.answer
    splits = data.load(dataset.adapter, experiment.data_root, path=dataset.path)
    checksum = data_checksum(splits)
    key = digest([settings_of(dataset, student), code_of(dataset), checksum])
    if _current(folder, key, student):
        return False
    with atomic(folder) as part:
        part.mkdir()
        train = splits["train"]
        texts = [text for column in TOKENISED for text in train[column]]
        # as methods use them: a prefix seen once would be spelled letter by letter in every input
        texts += [f"{literal.rstrip()} {text}" for literal in literals() for text in train["input"]]
        tokenizer = students.prepare(student, texts, part / "tokenizer")
        tokens = {split: _write(splits[split], tokenizer, part / f"{split}.arrow") for split in SPLITS}
        _check_joins(train[:100], tokenizer)
        manifest = {
            "dataset": dataset.name,
            "adapter": dataset.adapter,
            "student": student.name,
            "answer": answer,
            "key": key,
            "checksum": checksum,
            "sizes": {split: len(splits[split]) for split in SPLITS},
            "vocabulary": len(tokenizer),
            "tokens": tokens,
            "teacher": teacher_accuracy(splits, answer),
            "files": tree_sha256(part),
        }
        write_json(part / "manifest.json", sealed(manifest))
    return True


def settings_of(dataset: DatasetEntry, student: StudentEntry) -> str:
    """Digest of the settings that prepared data depend on."""
    keep = {"adapter", "path", "answer", "pretrained", "scratch"}
    # a scratch student's tokenizer is trained on the methods' prefixes too
    texts = literals() if student.scratch else []
    return digest([*(entry.model_dump(include=keep) for entry in (dataset, student)), texts])


def code_of(dataset: DatasetEntry) -> str:
    """Fingerprint of the code that prepared data depend on."""
    return fingerprint("data.prepared", f"data.adapters.{dataset.adapter}")


def _current(folder: Path, key: str, student: StudentEntry) -> bool:
    """Whether `folder` is what preparing would make."""
    from cotdistill import students

    try:
        manifest = Prepared(folder).manifest
        if manifest["key"] != key:
            return False
        files = {name: sha for name, sha in tree_sha256(folder).items() if name != "manifest.json"}
    except (UserError, OSError):
        return False
    if manifest["files"] != files:
        return False
    if student.scratch is not None:
        return True
    # a pretrained student's tokenizer is not ours: it may have become another
    with tempfile.TemporaryDirectory() as temporary:
        students.prepare(student, [], Path(temporary, "tokenizer"))
        now = tree_sha256(Path(temporary))
    return now == {name: sha for name, sha in files.items() if name.startswith("tokenizer/")}


def literals() -> list[str]:
    """Every prefix and literal target text of the registered methods."""
    from cotdistill.methods import FIELDS, METHODS, build

    tasks = [task for name in METHODS.names() for task in build(name).tasks]
    texts = {task.prefix for task in tasks} | {part for task in tasks for part in task.target}
    return sorted(texts - set(FIELDS) - {""})


def _write(rows: Any, tokenizer: PreTrainedTokenizerBase, path: Path) -> dict[str, dict[str, float]]:
    """Write one split with its token ids; return mean and longest length in tokens by column."""
    import numpy as np
    import pyarrow as pa

    lengths: dict[str, list[int]] = {column: [] for column in TOKENISED}
    writer = None
    with open(path, "wb") as handle:
        for start in range(0, max(len(rows), 1), CHUNK):
            columns: dict[str, Any] = rows[start : start + CHUNK]
            arrays = {name: pa.array(values) for name, values in columns.items() if name != "options"}
            arrays["options"] = pa.array(columns["options"], pa.list_(pa.string()))
            for column in TOKENISED:
                ids = _ids(tokenizer, columns[column])
                lengths[column] += [len(row) for row in ids]
                arrays[f"{column}_ids"] = pa.array(ids, pa.list_(pa.int32()))
            options = _option_ids(tokenizer, columns["options"])
            arrays["options_ids"] = pa.array(options, pa.list_(pa.list_(pa.int32())))
            batch = pa.record_batch(arrays)
            writer = writer or pa.ipc.new_stream(handle, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
    return {name: {"mean": float(np.mean(n or [0])), "max": max(n, default=0)} for name, n in lengths.items()}


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    # an empty list is an error to the tokenizer, and long texts are cut when tasks are put together
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return ids


def _option_ids(tokenizer: PreTrainedTokenizerBase, rows: list[list[str]]) -> list[list[list[int]]]:
    """Ids of every row's options; each distinct text is tokenised once."""
    texts = list(dict.fromkeys(text for row in rows for text in row))
    ids = dict(zip(texts, _ids(tokenizer, texts), strict=True))
    return [[ids[text] for text in row] for row in rows]


def _check_joins(rows: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose ids of a joined text are not the joined ids (sentence-level models)."""
    for literal in literals():
        for text in rows["input"]:
            joined = _ids(tokenizer, [literal.rstrip() + " " + text, literal, text])
            parts = joined[1] + joined[2]
            if joined[0] != parts:
                raise UserError(
                    f"tokenizer of '{tokenizer.name_or_path}': '{literal}' and the text after it are not "
                    "tokenised apart; expected one that splits at spaces, as T5's do"
                )


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in two flat arrays: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class Prepared:
    """A prepared folder, read. Raises UserError when it is missing or corrupt."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        remedy = f"remove {self.folder} to prepare again"
        self.manifest: dict[str, Any] = read_sealed(self.folder / "manifest.json", remedy)
        if "key" not in self.manifest:
            raise UserError(f"{self.folder}: prepared by an older version of this package; {remedy}")
        self._sound: set[str] = set()

    @property
    def digest(self) -> str:
        """Digest of all that a run reads from here: data, tokens and tokenizer."""
        # what was prepared, not by which code: other code that makes the same trains nothing again
        return digest({name: value for name, value in self.manifest.items() if name != "key"})

    def table(self, split: str) -> pa.Table:
        """The split, memory-mapped."""
        import pyarrow as pa

        path = self.folder / f"{split}.arrow"
        self._check(f"{split}.arrow")
        try:
            with pa.memory_map(str(path)) as source:
                return pa.ipc.open_stream(source).read_all()
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path}: no readable Arrow file ({error}); remove the folder to prepare again"
            ) from error

    def ragged(self, split: str, column: str) -> Ragged:
        """The token ids of one column."""
        import numpy as np

        array = self.table(split).column(f"{column}_ids").combine_chunks()
        return Ragged(np.asarray(array.values), np.asarray(array.offsets))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The pair's tokenizer."""
        from cotdistill.students import load_tokenizer

        for name in self.manifest["files"]:
            if name.startswith("tokenizer/"):
                self._check(name)
        return load_tokenizer(self.folder / "tokenizer")

    def _check(self, name: str) -> None:
        # Arrow has no checksums: a flipped bit would train on other tokens without a word
        if name in self._sound:
            return
        path = self.folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}; remove {self.folder} to prepare again"
            ) from error
        if found != self.manifest["files"].get(name):
            raise UserError(
                f"{path}: corrupt: its bytes are not those that were prepared; "
                f"remove {self.folder} to prepare again"
            )
        self._sound.add(name)

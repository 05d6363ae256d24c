"""One (dataset, student) pair, parsed and tokenised once into Arrow and shared by every run.

A prepared folder holds `train.arrow`, `valid.arrow`, `test.arrow` (the public columns, and token ids of
input, label, teacher_label, rationale and options without special tokens), `tokenizer/`, `manifest.json` and
`key.txt`, the digest of what preparing depended on. `warnings.txt` and `overlap.json` (see
`cotdistill.data.overlap_report`) are for a person; no run depends on them.

Token ids have no prefix and no end token, so one folder serves every method: inputs and targets are put
together at training time. Preparing checks that this gives the same ids as tokenising the joined text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import (
    atomic,
    check_hash,
    digest,
    hash_tree,
    read_sealed,
    seal,
    write_json,
    write_text,
)
from cotdistill.data.groups import count_groups
from cotdistill.data.rows import SPLITS
from cotdistill.data.survival import check_input, check_labels, check_special, list_special
from cotdistill.data.tasks import SHARED_LITERALS
from cotdistill.data.tokenizers import load_tokenizer, tokenise

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import DatasetDict
    from transformers import PreTrainedTokenizerBase

    MakeTokenizer = Callable[[list[str], Path], PreTrainedTokenizerBase]

KEY = "key.txt"
OVERLAP = "overlap.json"
"""what the splits share, see `cotdistill.data.overlap_report`"""
WARNINGS = "warnings.txt"
"""a line for each warning; they depend on run settings too, so they are apart from the manifest"""
CHECKED = 100
"""training inputs on which a tokenizer is checked"""
TOKENISED = ("input", "label", "teacher_label", "rationale")
CHUNK = 2_000
"""rows tokenised and written at once: bounds memory on e-SNLI's half a million rows"""


def write_prepared(
    folder: Path, key: str, about: dict[str, Any], splits: DatasetDict, make_tokenizer: MakeTokenizer,
    own_literals: Sequence[str] = (),
) -> None:  # fmt: skip
    """Tokenise the splits of a pair into `folder`, atomically.

    key: digest of what preparing depends on, for `is_current`. about: further entries of the manifest.
    make_tokenizer: makes the student's tokenizer from texts, and saves it to a folder. own_literals: prefixes
    and literal target texts of methods, beside SHARED_LITERALS. Raises UserError on a tokenizer that does not
    split at spaces, and on texts that do not survive it, see `cotdistill.data.survival`.
    """
    dataset = f"dataset '{about['dataset']}'"
    with atomic(folder) as part:
        part.mkdir()
        train = splits["train"]
        texts = [text for column in TOKENISED for text in train[column]]
        # as methods use them: a prefix seen once would be spelled letter by letter in every input
        texts += [f"{literal.rstrip()} {text}" for literal in SHARED_LITERALS for text in train["input"]]
        tokenizer = make_tokenizer(texts, part / "tokenizer")
        check_labels(splits, tokenizer, about["answer"], about["dataset"])
        tokens = {
            split: _write(splits[split], tokenizer, part / f"{split}.arrow", f"{dataset}, {split} row")
            for split in SPLITS
        }
        check_joins(train[:CHECKED]["input"], tokenizer, [*SHARED_LITERALS, *own_literals])
        manifest = {
            **about,
            "sizes": {split: len(splits[split]) for split in SPLITS},
            "groups": {split: count_groups(splits[split]["group"]) for split in SPLITS},
            "vocabulary": len(tokenizer),
            "tokens": tokens,
            "files": hash_tree(part),
        }
        write_json(part / "manifest.json", seal(manifest))
        # apart from the manifest, which stays as it is where another key gives the same data
        write_text(part / KEY, key)


def is_current(folder: Path, key: str) -> bool:
    """Whether `folder` holds all that `write_prepared` would make under this key, unchanged."""
    try:
        if (folder / KEY).read_text(encoding="utf-8") != key:
            return False
        manifest = Prepared(folder).manifest
        own = ("manifest.json", KEY, OVERLAP, WARNINGS)
        files = {name: sha for name, sha in hash_tree(folder).items() if name not in own}
        return bool(files == manifest["files"])
    except (UserError, OSError, UnicodeDecodeError, KeyError):
        return False


def read_warnings(folder: Path) -> list[str]:
    """Return the warnings on the prepared pair in `folder`, a line each; none where there is no file."""
    path = folder / WARNINGS
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _write(
    rows: Any, tokenizer: PreTrainedTokenizerBase, path: Path, place: str
) -> dict[str, dict[str, float]]:
    """Write one split with its token ids; return mean and longest length in tokens by column.

    place: what stands before a row's id in messages. Raises UserError on a row that cannot be learned.
    """
    import numpy as np
    import pyarrow as pa

    lengths: dict[str, list[int]] = {column: [] for column in TOKENISED}
    special, writer = list_special(tokenizer), None
    with open(path, "wb") as handle:
        for start in range(0, max(len(rows), 1), CHUNK):
            columns: dict[str, Any] = rows[start : start + CHUNK]
            arrays = {name: pa.array(values) for name, values in columns.items() if name != "options"}
            arrays["options"] = pa.array(columns["options"], pa.list_(pa.string()))
            for column in TOKENISED:
                ids = tokenise(tokenizer, columns[column])
                _check_rows(place, column, columns, ids, special)
                lengths[column] += [len(row) for row in ids]
                arrays[f"{column}_ids"] = pa.array(ids, pa.list_(pa.int32()))
            options = _tokenise_options(tokenizer, columns["options"])
            arrays["options_ids"] = pa.array(options, pa.list_(pa.list_(pa.int32())))
            batch = pa.record_batch(arrays)
            writer = writer or pa.ipc.new_stream(handle, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
    return {name: {"mean": float(np.mean(n or [0])), "max": max(n, default=0)} for name, n in lengths.items()}


def _check_rows(
    place: str, column: str, columns: dict[str, list[str]], ids: list[list[int]], special: dict[int, str]
) -> None:
    """Refuse a special token in a text to be written, and an input that begins as a space is written."""
    import numpy as np

    texts = columns[column]
    if column == "input":
        for identity, text in zip(columns["id"], texts, strict=True):
            check_input(f"{place} '{identity}'", text)
    elif np.isin([token for row in ids for token in row], list(special)).any():
        for identity, text, own in zip(columns["id"], texts, ids, strict=True):
            check_special(f"{place} '{identity}'", column, text, own, special)


def _tokenise_options(tokenizer: PreTrainedTokenizerBase, rows: list[list[str]]) -> list[list[list[int]]]:
    """Return the token ids of every row's options; each distinct text is tokenised once."""
    texts = list(dict.fromkeys(text for row in rows for text in row))
    ids = dict(zip(texts, tokenise(tokenizer, texts), strict=True))
    return [[ids[text] for text in row] for row in rows]


def check_joins(
    inputs: Sequence[str], tokenizer: PreTrainedTokenizerBase, literals: Sequence[str]
) -> None:
    """Refuse a tokenizer whose ids of a joined text are not the joined ids (sentence-level models).

    literals: what is put before the inputs. Raises UserError.
    """
    for literal in literals:
        for text in inputs:
            joined, *parts = tokenise(tokenizer, [literal.rstrip() + " " + text, literal, text])
            if joined != parts[0] + parts[1]:
                raise UserError(
                    f"tokenizer of '{tokenizer.name_or_path}': '{literal}' and the text after it are not "
                    f"tokenised apart, with the training input {text!r:.60}; expected one that splits at "
                    "spaces, as T5's do"
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
    """A prepared folder and its manifest. Raises UserError when the folder is missing or corrupt."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        remedy = f"remove {self.folder} to prepare again"
        self.manifest: dict[str, Any] = read_sealed(self.folder / "manifest.json", remedy)
        if "split_ids" not in self.manifest:
            raise UserError(f"{self.folder}: prepared by an older version of this package; {remedy}")
        self._sound: set[str] = set()

    @property
    def digest(self) -> str:
        """The digest of data, tokens, tokenizer and initial weights, on which a run's numbers depend."""
        return digest(self.manifest)

    def table(self, split: str) -> pa.Table:
        """Return the rows of a split, memory-mapped. Raises UserError when its file is corrupt."""
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
        """Return the token ids of one column of a split."""
        import numpy as np

        array = self.table(split).column(f"{column}_ids").combine_chunks()
        return Ragged(np.asarray(array.values), np.asarray(array.offsets))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the pair's tokenizer. Raises UserError when a file of it is corrupt."""
        for name in self.manifest["files"]:
            if name.startswith("tokenizer/"):
                self._check(name)
        return load_tokenizer(self.folder / "tokenizer")

    def _check(self, name: str) -> None:
        # Arrow has no checksums: after a flipped bit a run would train on other tokens without notice
        if name in self._sound:
            return
        fault = "corrupt: its bytes are not those that were prepared"
        expected = self.manifest["files"].get(name)
        check_hash(self.folder / name, expected, fault, f"remove {self.folder} to prepare again")
        self._sound.add(name)

"""The base classes of dataset adapters, and the functions that adapters use to read files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError, list_some, suggest
from cotdistill.common.files import read_json
from cotdistill.common.text import parse_lines, read_text
from cotdistill.common.text_units import find_words
from cotdistill.data.answers import Kind
from cotdistill.data.found import (
    SPLIT_NAMES,
    check_presence,
    describe_strays,
    find_stray_outputs,
    find_strays,
    list_names,
)
from cotdistill.data.groups import name_group
from cotdistill.data.rows import MOST_CHARACTERS, Row, is_blank

NLI_LABELS = ["entailment", "neutral", "contradiction"]
"""the texts of the integer labels 0, 1 and 2 of e-SNLI and ANLI"""

EOS = "</s>"
"""T5's end token, which the published code puts between premise and hypothesis"""


@dataclass(frozen=True)
class Record:
    """One JSON object of a file, with its place in the file for error messages."""

    path: Path
    index: int
    """number among the objects of the file, from 0"""
    fields: dict[str, Any]
    line: int
    """number of its line, from 1"""

    def fault(self, message: str) -> UserError:
        """Return a UserError that names this file and line."""
        return UserError(f"{self.path}:{self.line}: {message}")

    def value(self, column: str) -> Any:
        """Return the value of `column`. Raises UserError if it is missing."""
        if column not in self.fields:
            known = ", ".join(self.fields)
            raise self.fault(f"column '{column}' is missing{suggest(column, self.fields)} (found: {known})")
        return self.fields[column]

    def text(self, column: str, *, filled: bool = False) -> str:
        """Return the text in `column`.

        filled: refuse a blank text. Raises UserError if the value is missing, no text, or refused.
        """
        value = self.value(column)
        if not isinstance(value, str):
            raise self.fault(f"column '{column}': expected text, found {type(value).__name__}")
        if not _is_encodable(value):
            raise self.fault(f"column '{column}': expected Unicode text, found half a surrogate pair")
        self._check_length(column, value)
        if filled and is_blank(value):
            raise self.fault(f"column '{column}' is empty; expected text")
        return value

    def texts(self, column: str, count: int | None = None) -> list[str]:
        """Return the texts in `column`, `count` of them if given. Raises UserError for anything else."""
        value = self.value(column)
        good = isinstance(value, list) and all(
            isinstance(item, str) and _is_encodable(item) for item in value
        )
        if not good or count not in (None, len(value)):
            wanted = "a list of texts" if count is None else f"a list of {count} texts"
            found = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
            raise self.fault(f"column '{column}': expected {wanted}, found {found}")
        for item in value:
            self._check_length(column, item)
        return value

    def _check_length(self, column: str, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise self.fault(
                f"column '{column}': a text of {len(text)} characters; expected at most {MOST_CHARACTERS}"
            )


def _is_encodable(text: str) -> bool:
    # JSON can spell half a surrogate pair, which Arrow cannot store
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def read_records(path: Path) -> list[Record]:
    """Read the objects of a JSON lines file, at least one. Raises UserError naming file and line."""
    lines = parse_lines(path, read_text(path))
    records = [Record(path, index, fields, line) for index, (line, fields) in enumerate(lines)]
    if not records:
        raise UserError(f"{path}: no rows; expected one JSON object a line")
    return records


def read_teacher_outputs(folder: Path, split: str, rows: int) -> list[str]:
    """Read the raw teacher outputs of one split, in the order of its `rows` rows.

    They are in `<split>_CoT_<i>.json`, i = 0, 1, ... without a gap, each a JSON array of strings. Raises
    UserError if a file is missing or no such array, or if there are not exactly `rows` outputs.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the teacher outputs {split}_CoT_0.json, ...")
    names = list_names(folder)
    # by number: as text, batch 10 would come before batch 2
    numbers = sorted(int(match[1]) for name in names if (match := _match_output_batch(name, split)))
    expected = next((index for index, number in enumerate(numbers) if number != index), len(numbers))
    if not numbers or expected < len(numbers):
        have = ", ".join(map(str, numbers[:20])) or "none"
        near = find_stray_outputs(names, split, [f"{split}_CoT_{number}.json" for number in numbers])
        beside = f"; not read: {list_some(near, 3)}" if near else ""
        raise UserError(
            f"{folder / f'{split}_CoT_{expected}.json'}: no such file (batches found: {have}){beside}"
        )
    outputs: list[str] = []
    for number in numbers:
        outputs += _read_output_batch(folder / f"{split}_CoT_{number}.json")
    if len(outputs) != rows:
        last = numbers[-1]
        raise UserError(
            f"{folder}: teacher outputs: {len(outputs)} for {rows} rows ({split}_CoT_0.json to "
            f"{split}_CoT_{last}.json); expected one for each row of the split"
        )
    return outputs


def _match_output_batch(name: str, split: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{split}_CoT_(0|[1-9][0-9]{{0,8}})\.json", name)


def find_named_option(text: str, options: Sequence[str]) -> str:
    """Return the only option that `text` names; an empty string where it names none, or several.

    An option is named where its whole words occur in the text, in any case; a plural's ending on the last
    word is ignored ("clubs" names "club"), and an option within a longer named one does not count ("cup" in
    "coffee cup"). Words are those of `find_words`: of scripts without spaces each character is one, so an
    option of several is found as a part of the text.
    """
    padded = f" {_join_words(text)} "
    named = [(option, words) for option in dict.fromkeys(options) if (words := _join_words(option))
             and any(f" {words}{ending} " in padded for ending in ("", "s", "es"))]  # fmt: skip
    longest = [option for option, words in named
               if not any(words != other and f" {words} " in f" {other} " for _, other in named)]  # fmt: skip
    return longest[0] if len(longest) == 1 else ""


def _join_words(text: str) -> str:
    return " ".join(find_words(text, "_'"))


def _read_output_batch(path: Path) -> list[str]:
    batch = read_json(path)
    if not isinstance(batch, list):
        raise UserError(f"{path}: expected a JSON array of texts, found {type(batch).__name__}")
    for number, output in enumerate(batch):
        if not isinstance(output, str) or not _is_encodable(output):
            found = "half a surrogate pair" if isinstance(output, str) else type(output).__name__
            raise UserError(f"{path}: output {number} (from 0): expected text, found {found}")
        if len(output) > MOST_CHARACTERS:
            raise UserError(
                f"{path}: output {number} (from 0): a text of {len(output)} characters; expected at most "
                f"{MOST_CHARACTERS}"
            )
    return batch


class Adapter(ABC):
    """A dataset. A module of `cotdistill.data.adapters` exposes one instance as `ADAPTER`."""

    name: str
    """the module's name"""
    answer: Kind
    """how answers are compared, see `cotdistill.data.answers`"""
    licence: str
    source: str
    needs_release: bool = False
    """the rows come from the published archive, see `cotdistill.data.release`"""
    needs_path: bool = False
    """`root` is the folder of the files itself, which has no default place"""
    reads_open_labels: bool = False
    """`stated_label` can read a label where there are no options to choose from"""

    @abstractmethod
    def read(self, root: Path) -> dict[str, list[Row]]:
        """Return the splits as they are on disk: 'train', 'test' and, where there is one, 'valid'.

        root: the data root, or with `needs_path` the folder of the files. Raises UserError naming file and
        line of a fault.
        """

    def find_unread(self, root: Path) -> list[str]:
        """Return a line about each thing in the files that looks like a part of the data and is not read."""
        return []

    def extra_train(self, root: Path) -> list[Row]:
        """Return rows that join the training split after a validation split has been cut from it."""
        return []

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return (rationale, label) of one raw teacher output; by default all of it is rationale."""
        return output.strip(), ""

    def stated_label(self, rationale: str, options: Sequence[str]) -> str:
        """Return the label that a rationale itself states, one of `options` where the label set is closed.

        An empty string where it states none that can be read. `rationale` is generated text and may be
        anything; the time must be linear in its length. By default the only option that it names, see
        `find_named_option`.
        """
        return find_named_option(rationale, options)


class ReleaseAdapter(Adapter):
    """A dataset in the layout of the published archive.

    `<root>/<name>/<name>_<split>.json` holds JSON lines, `<root>/<name>/llm/` the teacher outputs.
    """

    needs_release = True
    splits: tuple[str, ...] = ("train", "test")

    def read(self, root: Path) -> dict[str, list[Row]]:
        """Return the splits of `splits`; see `Adapter.read`."""
        return {split: self.read_split(root, split) for split in self.splits}

    def find_unread(self, root: Path) -> list[str]:
        """Return a line about each file whose name is nearly that of one that is read."""
        folder, prefix, found = root / self.name, f"{self.name}_", []
        for split in SPLIT_NAMES:
            name = f"{prefix}{split}.json" if split in self.splits else None
            strays = find_strays(list_names(folder), split, [name] if name else [], prefix)
            found += describe_strays(folder, strays, split, name)
            names = list_names(folder / "llm")
            read = [each for each in names if name and _match_output_batch(each, split)]
            found += describe_strays(
                folder / "llm", find_stray_outputs(names, split, read), split, list_some(read, 1) or None
            )
        return found

    def read_split(self, root: Path, split: str) -> list[Row]:
        """Return the rows of one split, with the teacher's outputs parsed."""
        folder = root / self.name
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the data root to hold '{self.name}/'")
        check_presence(folder, f"{self.name}_{split}.json", split, f"{self.name}_")
        records = read_records(folder / f"{self.name}_{split}.json")
        outputs = read_teacher_outputs(folder / "llm", split, len(records))
        return [
            self._row(f"{self.name}-{split}-{record.index}", record, output)
            for record, output in zip(records, outputs, strict=True)
        ]

    def _row(self, identity: str, record: Record, output: str) -> Row:
        text, label, options = self.example(record)
        rationale, teacher_label = self.parse_teacher(output)
        return Row(id=identity, input=text, label=label, rationale=rationale, teacher_label=teacher_label,
                   options=options, group=self.find_group(record))  # fmt: skip

    def find_group(self, record: Record) -> str:
        """Return the name of the group of examples that share a text with this one; '' for none."""
        return ""

    @abstractmethod
    def example(self, record: Record) -> tuple[str, str, list[str]]:
        """Return (input, gold label, options) of one record. Raises UserError at its line."""

    @abstractmethod
    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return (rationale, label) of one PaLM output, read as published; '' for what is missing."""


# PaLM's rationales seldom name a label; these phrases say it. Plain negation does not count: on e-SNLI's
# training rows 83% of the rationales with one have the label contradiction, 17% another
_STATED = {
    "neutral": r"not necessarily|neutral|not (?:clear|known|stated|mentioned|specified)|unknown"
    r"|(?:does not|doesn't|do not|don't) (?:mean|imply|entail|mention|say|state|specify)"
    r"|(?:could|may|might) (?:be|have|not)",
    "contradiction": r"contradict\w*|cannot|can't|can not|impossible|at the same time",
    "entailment": r"entailment|implies|synonym\w*|rephras\w*",
}
_STATEMENTS = {label: re.compile(rf"\b(?:{phrases})\b") for label, phrases in _STATED.items()}


class NliAdapter(ReleaseAdapter):
    """Natural language inference: premise, hypothesis and an integer label."""

    answer: Kind = "text"
    splits = ("train", "valid", "test")

    def example(self, record: Record) -> tuple[str, str, list[str]]:
        """Return premise and hypothesis joined by EOS, the label's text, and the three labels."""
        label = record.value("label")
        # `True` is an int to Python, and SNLI marks rows without a gold label as -1
        if type(label) is not int or not 0 <= label < len(NLI_LABELS):
            meaning = ", ".join(f"{number} ({text})" for number, text in enumerate(NLI_LABELS))
            raise record.fault(f"column 'label': expected one of {meaning}; found {label!r:.40}")
        text = record.text("premise") + EOS + record.text("hypothesis")
        return text, NLI_LABELS[label], list(NLI_LABELS)

    def find_group(self, record: Record) -> str:
        """Return the premise, case and white space aside, or its digest; see `name_group`."""
        return name_group(" ".join(record.text("premise").casefold().split()))

    def stated_label(self, rationale: str, options: Sequence[str]) -> str:
        """Return the label whose phrase occurs in the rationale; an empty string where none does, as in most.

        Phrases are such as "not necessarily" (neutral), "cannot" (contradiction) and "implies" (entailment).
        Where phrases of several labels occur, neutral is taken before contradiction, and that before
        entailment.
        """
        text = rationale.lower()
        return next((label for label, phrase in _STATEMENTS.items() if phrase.search(text)), "")

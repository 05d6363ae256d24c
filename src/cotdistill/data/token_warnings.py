"""Count what a student cannot read, write or reach in a prepared pair: lines for a person, and two refusals.

All is computed from the folder, so that nothing is tokenised again where the settings alone are others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from cotdistill.common.errors import UserError, list_some
from cotdistill.data.prepared import TOKENISED, Prepared
from cotdistill.data.rows import SPLITS
from cotdistill.data.survival import list_special
from cotdistill.data.tasks import FIELDS, Task, limit_answer
from cotdistill.data.tokenizers import decode_texts, tokenise

TARGETS = "training.max_target_tokens"


@dataclass(frozen=True)
class Limits:
    """The settings at which inputs, targets and answers are cut."""

    max_input_tokens: int
    max_target_tokens: int
    max_new_tokens: int


@dataclass(frozen=True)
class Aim:
    """A method of the grid: its tasks, the first of which is evaluated, and how a label is read of that."""

    method: str
    tasks: tuple[Task, ...]
    read_label: Callable[[str], str]


def list_text_warnings(prepared: Prepared) -> list[str]:
    """Return a line for each kind of text that the tokenizer changes without making it useless."""
    tokenizer = prepared.tokenizer()
    return [
        *_list_unknown(prepared, int(tokenizer.unk_token_id)),
        *_list_rewritten(prepared, tokenizer),
        *_list_spellings(prepared),
        *_list_lost_teacher_labels(prepared, tokenizer),
        *_list_special_inputs(prepared, tokenizer),
    ]


def list_length_warnings(
    prepared: Prepared, limits: Limits, aims: Sequence[Aim], sources: Sequence[str]
) -> list[str]:
    """Return a line for each kind of text that the settings cut, and for gold labels out of reach.

    sources: of the target field `label`, 'gold' and 'teacher'. Raises UserError where a prefix leaves no room
    for an input, or where a method can reach no gold label of test.
    """
    counter = _Counter(prepared, limits, sources)
    tasks = list(dict.fromkeys(task for aim in aims for task in aim.tasks))
    return [
        *(line for prefix in dict.fromkeys(task.prefix for task in tasks)
          if (line := counter.count_cut_inputs(prefix))),
        *(line for target in dict.fromkeys(task.target for task in tasks)
          if (line := counter.count_cut_targets(target))),
        *counter.count_unreachable(aims),
        *counter.count_cut_options(),
    ]  # fmt: skip


def _list_unknown(prepared: Prepared, unknown: int) -> Iterator[str]:
    shares = []
    for column in TOKENISED:
        values = [_read_values(prepared, split, column) for split in SPLITS]
        total, found = sum(map(len, values)), sum(int((each == unknown).sum()) for each in values)
        if found:
            shares.append(f"{column} {100 * found / total:.2g}%")
    if shares:
        yield (
            "tokens unknown to the student's tokenizer, whose text is lost, of all tokens of a column: "
            + ", ".join(shares)
        )


def _list_rewritten(prepared: Prepared, tokenizer: Any) -> Iterator[str]:
    """Count gold labels that come back as another text; white space and the spelling of numbers aside."""
    if prepared.manifest["answer"] == "equation":
        return
    for split in SPLITS:
        labels, first = _read_distinct(prepared, split, "label")
        ids = prepared.ragged(split, "label")
        written = dict(zip(first, decode_texts(tokenizer, [ids[row] for row in first.values()]), strict=True))
        rows = [row for row, label in enumerate(labels) if " ".join(label.split()) != written[label]]
        if rows:
            label = labels[rows[0]]
            yield (
                f"{split}: {len(rows)} of {len(labels)} gold labels are another text once tokenised, such as "
                f"{label!r:.60} as {written[label]!r:.60} (row '{_read_id(prepared, split, rows[0])}'); "
                "answers are held against the latter"
            )


def _list_spellings(prepared: Prepared) -> Iterator[str]:
    """Count labels of an open set that differ from another in white space alone."""
    if prepared.manifest["answer"] == "equation":
        return
    found: dict[str, str] = {}
    double: dict[str, str] = {}
    for split in SPLITS:
        options = prepared.table(split).column("options").combine_chunks()
        labels, first = _read_distinct(prepared, split, "label")
        for label, row in first.items():
            if options[row].as_py():
                continue
            other = found.setdefault(" ".join(label.split()), label)
            if other != label:
                double[label] = other
    if double:
        label, other = next(iter(double.items()))
        yield (
            f"{len(double)} gold labels differ from another in white space alone and count as the same, such "
            f"as {label!r:.60} and {other!r:.60}"
        )


def _list_lost_teacher_labels(prepared: Prepared, tokenizer: Any) -> Iterator[str]:
    for split in SPLITS:
        labels, first = _read_distinct(prepared, split, "teacher_label")
        ids = prepared.ragged(split, "teacher_label")
        written = dict(zip(first, decode_texts(tokenizer, [ids[row] for row in first.values()]), strict=True))
        rows = [row for row, label in enumerate(labels) if label.strip() and not written[label]]
        if rows:
            yield (
                f"{split}: {len(rows)} of {len(labels)} teacher labels are empty once tokenised, such as "
                f"{labels[rows[0]]!r:.60} (row '{_read_id(prepared, split, rows[0])}')"
            )


def _list_special_inputs(prepared: Prepared, tokenizer: Any) -> Iterator[str]:
    """Count inputs that hold the padding token: it says nothing, so it is there by mistake."""
    padding = int(tokenizer.pad_token_id)
    for split in SPLITS:
        ids = prepared.ragged(split, "input")
        places = np.flatnonzero(_read_values(prepared, split, "input") == padding)
        rows = np.unique(np.searchsorted(ids.offsets - ids.offsets[0], places, side="right") - 1)
        if len(rows):
            yield (
                f"{split}: {len(rows)} of {len(ids)} inputs hold '{list_special(tokenizer)[padding]}', which "
                f"a student reads as a control token (row '{_read_id(prepared, split, int(rows[0]))}')"
            )


class _Counter:
    """Counts of rows that are longer than the settings allow."""

    def __init__(self, prepared: Prepared, limits: Limits, sources: Sequence[str]) -> None:
        self.prepared, self.limits, self.sources = prepared, limits, sources
        self.tokenizer = prepared.tokenizer()
        self.lengths = cache(self._read_lengths)

    def count_cut_inputs(self, prefix: str) -> str:
        """Return a line on inputs that are cut behind a prefix, or an empty string. Raises UserError."""
        before = self._count_literal(prefix)
        most = self.limits.max_input_tokens
        if before + 1 >= most:
            raise UserError(
                f"training.max_input_tokens: {most} leaves no room for an input between the prefix "
                f"{prefix!r} ({before} tokens) and the end token; expected more"
            )
        counts = self._count({split: self.lengths(split, "input") + before + 1 for split in SPLITS}, most)
        named = f" with the prefix {prefix!r}" if prefix else ""
        return counts and f"inputs{named} are cut at training.max_input_tokens ({most}): {counts}"

    def count_cut_targets(self, target: tuple[str, ...]) -> str:
        """Return a line on targets that are cut, or an empty string."""
        most, lines = self.limits.max_target_tokens, []
        for source in self.sources if "label" in target else self.sources[:1]:
            lengths = {split: self._count_target(split, target, source) + 1 for split in SPLITS}
            if counts := self._count(lengths, most):
                named = " (labels of the teacher)" if source == "teacher" and "label" in target else ""
                lines.append(f"{counts}{named}")
        what = " + ".join(part if part in FIELDS else repr(part) for part in target)
        return (lines and f"targets of {what} are cut at {TARGETS} ({most}): "
                + "; ".join(lines)) or ""  # fmt: skip

    def count_unreachable(self, aims: Sequence[Aim]) -> list[str]:
        """Return a line for each set of methods that cannot write gold labels. Raises UserError.

        An equation may also be answered by a shorter one of the same value: it is never refused.
        """
        found: dict[str, list[str]] = {}
        for aim in aims:
            parts, may_refuse = [], self.prepared.manifest["answer"] == "text"
            name = f"method '{aim.method}'"
            for split in ("valid", "test"):
                rows, why = self._find_unreachable(split, aim)
                total = len(self.lengths(split, "label"))
                example = f"row '{_read_id(self.prepared, split, int(rows[0]))}'" if len(rows) else ""
                if may_refuse and split == "test" and len(rows) == total:
                    raise UserError(f"{name} can write no gold label of test ({example}): {why}")
                if len(rows):
                    parts.append(f"{split} {len(rows)} of {total}, such as {example}: {why}")
            if parts:
                found.setdefault("; ".join(parts), []).append(aim.method)
        return [
            f"gold labels that cannot be written ({list_some(methods, 5)}): {line}"
            for line, methods in found.items()
        ]

    def count_cut_options(self) -> list[str]:
        """Return a line on options of which the student scores the beginning alone."""
        most, counts = self.limits.max_target_tokens, []
        for split in SPLITS:
            options = self.prepared.table(split).column("options_ids").combine_chunks().values
            longer = int((np.diff(np.asarray(options.offsets)) + 1 > most).sum())
            if longer:
                counts.append(f"{split} {longer} of {len(options)}")
        line = f"options are scored up to {TARGETS} ({most}): {', '.join(counts)}"
        return [line] if counts else []

    def _find_unreachable(self, split: str, aim: Aim) -> tuple[np.ndarray, str]:
        """Return the rows whose gold label a method cannot write, or not read back, and why the first."""
        task = aim.tasks[0]
        literals = [part for part in task.target if part not in FIELDS]
        most = limit_answer(task, self.limits.max_new_tokens, self.limits.max_target_tokens)
        needed = self.lengths(split, "label") + sum(map(self._count_literal, literals))
        # training cuts a target at max_target_tokens, its end token included
        long = (needed > most) | (needed + 1 > self.limits.max_target_tokens)
        unread = self._find_unread(split, aim, np.flatnonzero(~long))
        if long.any():
            value = min(most, self.limits.max_target_tokens)
            name = "evaluation.max_new_tokens" if value < self.limits.max_target_tokens else TARGETS
            why = f"{int(needed[long][0])} tokens, {name} is {value}; raise it"
        else:
            why = f"the label is not read back behind {literals!r}; choose another student or other labels"
        return np.union1d(np.flatnonzero(long), unread), why

    def _find_unread(self, split: str, aim: Aim, rows: np.ndarray) -> np.ndarray:
        """Return those of `rows` whose label is not read back from the perfect answer."""
        labels, first = _read_distinct(self.prepared, split, "label")
        ids = self.prepared.ragged(split, "label")
        target = [part for part in aim.tasks[0].target if part != "rationale"]
        perfect = [
            np.concatenate([ids[row] if part == "label" else self._tokenise(part) for part in target])
            for row in first.values()
        ]
        alone = decode_texts(self.tokenizer, [ids[row] for row in first.values()])
        read = map(aim.read_label, decode_texts(self.tokenizer, perfect))
        bad = {label for label, text, gold in zip(first, read, alone, strict=True) if text != gold}
        return np.array([row for row in rows if labels[row] in bad], dtype=np.int64)

    def _count(self, lengths: dict[str, np.ndarray], most: int) -> str:
        """Return 'train 3 of 26 (longest 70 tokens)' for the splits with rows longer than `most`."""
        longer = {split: int((each > most).sum()) for split, each in lengths.items()}
        return ", ".join(
            f"{split} {longer[split]} of {len(each)} (longest {int(each.max())} tokens)"
            for split, each in lengths.items() if longer[split]
        )  # fmt: skip

    def _count_target(self, split: str, target: tuple[str, ...], source: str) -> np.ndarray:
        fields = {"label": "teacher_label" if source == "teacher" else "label", "rationale": "rationale"}
        total = np.zeros(len(self.lengths(split, "label")), dtype=np.int64)
        for part in target:
            total += self.lengths(split, fields[part]) if part in FIELDS else self._count_literal(part)
        return total

    def _read_lengths(self, split: str, column: str) -> np.ndarray:
        return np.diff(self.prepared.ragged(split, column).offsets).astype(np.int64)

    def _tokenise(self, text: str) -> list[int]:
        return tokenise(self.tokenizer, [text])[0] if text else []

    def _count_literal(self, text: str) -> int:
        return len(self._tokenise(text))


def _read_values(prepared: Prepared, split: str, column: str) -> np.ndarray:
    """Return the token ids of all rows of a column, end to end."""
    ids = prepared.ragged(split, column)
    return ids.values[ids.offsets[0] : ids.offsets[-1]]


def _read_distinct(prepared: Prepared, split: str, column: str) -> tuple[list[str], dict[str, int]]:
    """Return a text column, and the first row of each distinct text."""
    texts: list[str] = prepared.table(split).column(column).to_pylist()
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    return texts, first


def _read_id(prepared: Prepared, split: str, row: int) -> str:
    return str(prepared.table(split).column("id")[row].as_py())

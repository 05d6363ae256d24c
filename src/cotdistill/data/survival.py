"""Refuse texts that are not themselves any more once the tokenizer has read and written them.

A character that a tokenizer lacks becomes its unknown token, which decoding drops: a label `<` is then empty,
and two labels that differ in such a character are one. Normalisation does the same to `①` and `1`. A student
cannot be right about such labels, or is right whatever it writes. Special tokens in a text are taken for
control tokens: a rationale's `</s>` ends the target before its label.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError
from cotdistill.data.adapter import EOS
from cotdistill.data.answers import evaluate_equation
from cotdistill.data.rows import Row
from cotdistill.data.tokenizers import decode_texts, tokenise

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedTokenizerBase

SPACE = "▁"
"""what a tokenizer of T5's kind writes for a space"""
REMEDY = (
    "write it with characters that the tokenizer has (a scratch student's has those of the training split), "
    "add them to the student's tokenizer as tokens, or choose another student"
)
CHUNK = 10_000
"""rows looked at together"""


def strip_row(row: Row, place: str) -> Row:
    """Return a row without end tokens at the end of its label, teacher's label, rationale and options.

    place: of the row, for messages. Raises UserError where nothing is left of the label, or where two options
    become one.
    """
    texts = (row["label"], row["teacher_label"], row["rationale"], *row["options"])
    if not any(EOS in text for text in texts):
        return row
    label, options = _strip_end(row["label"]), [_strip_end(option) for option in row["options"]]
    if not label:
        raise UserError(f"{place}: label {row['label']!r:.60} is nothing but the end token; expected a text")
    if len(set(options)) < len(set(row["options"])):
        raise UserError(f"{place}: two options are one without '{EOS}' at their end; expected distinct texts")
    return {
        **row, "label": label, "options": options, "teacher_label": _strip_end(row["teacher_label"]),
        "rationale": _strip_end(row["rationale"]),
    }  # fmt: skip


def _strip_end(text: str) -> str:
    parts = text.split(EOS)
    if len(parts) == 1 or parts[-1].strip():
        return text
    while parts and not parts[-1].strip():
        parts.pop()
    return EOS.join(parts).rstrip()


def list_special(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the ids and texts of the tokens that decoding drops."""
    added = tokenizer.added_tokens_decoder
    found = {number: str(token) for number, token in added.items() if token.special}
    return found | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


def check_special(
    place: str, column: str, text: str, ids: Sequence[int], special: dict[int, str]
) -> None:
    """Refuse a text to be written that holds a special token. Raises UserError.

    special: of the tokenizer, see `list_special`. The unknown token counts only where the text spells it.
    """
    token = next((special[each] for each in ids if each in special and special[each] in text), None)
    if token is not None:
        raise UserError(
            f"{place}: column '{column}' holds '{token}', a special token of the student's tokenizer, in "
            f"{_shorten(text)}; expected text: remove it (only '{EOS}' at the end is stripped)"
        )


def check_input(place: str, text: str) -> None:
    """Refuse an input that begins with the tokenizer's own sign for a space. Raises UserError."""
    if text.lstrip().startswith(SPACE):
        raise UserError(
            f"{place}: column 'input' begins with '{SPACE}' (U+2581), which tokenizers use for a space, in "
            f"{_shorten(text)}; expected text: remove it"
        )


def check_labels(splits: DatasetDict, tokenizer: PreTrainedTokenizerBase, answer: str, dataset: str) -> None:
    """Refuse labels and options that the tokenizer leaves empty, or cannot tell apart.

    A label is held against the options of its row; where it has none, against the labels of all such rows
    (there, texts that differ in white space alone are one label). An equation must keep its value.
    answer: the kind of answer. Raises UserError that names the row and the character.
    """
    checker = _Checker(tokenizer, answer)
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for split, all_columns in splits.items():
        rows = all_columns.select_columns(["id", "label", "options"])
        for start in range(0, len(rows), CHUNK):
            chunk: dict[str, Any] = rows[start : start + CHUNK]
            new: dict[tuple[str, tuple[str, ...]], str] = {}
            for identity, label, options in zip(chunk["id"], chunk["label"], chunk["options"], strict=True):
                if (key := (label, tuple(options))) not in seen:
                    seen.add(key)
                    new[key] = identity
            checker.read({text for label, options in new for text in (label, *options)})
            for (label, options), identity in new.items():
                checker.check(f"dataset '{dataset}', {split} row '{identity}'", label, options)


class _Checker:
    """What the tokenizer makes of distinct texts, and the labels without options that were met."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.special = list_special(tokenizer)
        self.ids: dict[str, list[int]] = {}
        self.written: dict[str, str] = {}
        self.open: dict[str, tuple[str, str]] = {}
        """a decoded label -> the label and the place of its first row"""

    def read(self, texts: set[str]) -> None:
        """Tokenise and decode texts, those that are new."""
        new = sorted(texts - self.ids.keys())
        ids = tokenise(self.tokenizer, new)
        self.ids.update(zip(new, ids, strict=True))
        self.written.update(zip(new, decode_texts(self.tokenizer, ids), strict=True))

    def check(self, place: str, label: str, options: Sequence[str]) -> None:
        """Refuse the label or an option of a row. Raises UserError."""
        self._check_text(place, "label", label)
        if self.answer == "equation" and evaluate_equation(label) != evaluate_equation(self.written[label]):
            raise UserError(
                f"{place}: label {_shorten(label)} is another equation to the student's tokenizer, "
                f"{_shorten(self.written[label])}{_name_lost(label, self.written[label])}; {REMEDY}"
            )
        owners: dict[str, str] = {}
        for option in dict.fromkeys(options):
            self._check_text(place, "option", option)
            if (other := owners.setdefault(self.written[option], option)) != option:
                raise self._make_collision(f"{place}: options", other, option, "")
        if options or self.answer == "equation":
            return
        other, first = self.open.setdefault(self.written[label], (label, place))
        if other.split() != label.split():
            raise self._make_collision(f"{place}: labels", label, other, f" (the latter of {first})")

    def _check_text(self, place: str, column: str, text: str) -> None:
        check_special(place, column, text, self.ids[text], self.special)
        if not self.written[text]:
            raise UserError(
                f"{place}: {column} {_shorten(text)} is an empty text to the student's tokenizer"
                f"{_name_lost(text, '')}; {REMEDY}"
            )

    def _make_collision(self, what: str, one: str, other: str, where: str) -> UserError:
        written = self.written[one]
        lost = _name_lost(one + other, written)
        return UserError(
            f"{what} {_shorten(one)} and {_shorten(other)}{where} are one text to the student's tokenizer, "
            f"{_shorten(written)}{lost}; {REMEDY}"
        )


def _name_lost(text: str, written: str) -> str:
    """Return a part of a sentence that names the first characters of `text` that are not in `written`."""
    lost = [each for each in dict.fromkeys(text) if each not in written and not each.isspace()][:3]
    return f", which does not keep {', '.join(map(_name, lost))}" if lost else ""


def _name(character: str) -> str:
    code = f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
    return f"'{character}' ({code})" if character.isprintable() else code


def _shorten(text: str) -> str:
    return f"{text!r:.60}"

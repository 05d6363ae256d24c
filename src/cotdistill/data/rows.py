"""The columns of an example, the same for every adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict


class Row(TypedDict):
    """One example. All texts are complete: no prefix, no truncation."""

    id: str
    """unique over the dataset: name, split on disk and row number from 0 (own ids where a file has them)"""
    input: str
    label: str
    """the gold label, never empty"""
    rationale: str
    """the teacher's rationale; empty where its output could not be read"""
    teacher_label: str
    """the teacher's label; empty where its output holds none. It need not be one of the options"""
    options: list[str]
    """the labels to choose from, with repetitions if the data has them; empty for an open label set"""
    group: NotRequired[str]
    """what it shares with other examples, such as a premise: the same text for all of them, in every split;
    empty, as where an adapter leaves it out, for an example of its own. See `cotdistill.data.groups`"""


MOST_CHARACTERS = 100_000
"""of one text: some 25,000 tokens, more than a T5 reads. A longer one is a mistake, such as a whole file in
one line, which would keep a tokenizer busy for minutes"""
MOST_OPTIONS = 256
"""of one example. Each is one more target that is scored for each test example; published sets of intents
and topics have at most some 200"""

COLUMNS = tuple(Row.__annotations__)
SPLITS = ("train", "valid", "test")


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or all white space and characters without a shape."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def find_option_fault(label: str, options: Sequence[str]) -> str:
    """Return what is wrong with an example's options; '' where nothing is.

    There may be none (an open label set), and they may repeat one another.
    """
    if not options:
        return ""
    if label not in options:
        return f"column 'label': expected one of the options, found {label!r:.60}"
    if len(options) > MOST_OPTIONS:
        return f"column 'options': {len(options)} of them; expected at most {MOST_OPTIONS}"
    if any(is_blank(option) for option in options):
        return "column 'options': one is empty; expected texts"
    if len(set(options)) < 2:
        return (
            f"column 'options': only {label!r:.60}; expected two that differ, or none at all for an open "
            "label set"
        )
    return ""

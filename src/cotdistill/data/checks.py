"""Check the rows of a dataset, whichever adapter read them: that each can be learned, and can be scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cotdistill.common.errors import UserError, list_some
from cotdistill.data.adapter import EOS
from cotdistill.data.answers import evaluate_equation, is_right
from cotdistill.data.rows import MOST_CHARACTERS, find_option_fault, is_blank

if TYPE_CHECKING:
    from datasets import DatasetDict

SHOWN = 3
"""rows that a line names; the others are counted"""
FEW_LABELS = 20
"""up to so many different labels count as a closed label set, also where rows name no options"""
GAP = 0.25
"""between a teacher's accuracies on two splits, from which on one of the splits is suspected"""
SURE = 1e-3
"""probability of such a gap by chance (Fisher's exact test) below which it is told"""

Texts = dict[str, list[str]]
"""a split's texts by column"""


@dataclass(frozen=True)
class Demands:
    """What the runs of a grid take from a dataset's rows."""

    answer: str
    """how answers are compared"""
    rationales: tuple[str, ...] = ()
    """names of the methods whose students write rationales"""
    teacher_labels: bool = False
    """whether students train on the teacher's labels"""
    published: bool = False
    """whether the rows are a publication's, and stay where a teacher's output could not be read"""


def check_splits(name: str, splits: DatasetDict, demands: Demands) -> list[str]:
    """Return a line of warning for each thing about the rows of dataset `name` that may be a mistake.

    Raises UserError for rows that no student can learn from or no answer can be right on.
    """
    columns = ("id", "input", "label", "rationale", "teacher_label")
    texts: dict[str, Texts] = {
        str(split): {column: list(rows[column]) for column in columns} for split, rows in splits.items()
    }
    options = {str(split): list(rows["options"]) for split, rows in splits.items()}
    for split, columns_of_split in texts.items():
        where = f"dataset '{name}', {split}"
        _check_texts(where, columns_of_split)
        _check_options(where, columns_of_split, options[split])
        if demands.answer == "equation":
            _check_values(where, columns_of_split)
    where = f"dataset '{name}', train"
    return [
        *_check_teacher_labels(where, texts["train"], demands),
        *_check_rationales(where, texts["train"], demands),
        *_compare_teachers(name, texts, demands.answer),
        *_compare_spellings(name, texts, options, demands.answer),
    ]


def _find(values: Iterable[str], is_bad: Callable[[str], bool]) -> list[int]:
    return [row for row, value in enumerate(values) if is_bad(value)]


def _name_rows(texts: Texts, rows: Sequence[int], column: str | None = None) -> str:
    """Return the first of `rows` by their ids, with their texts in `column`, and how many more there are."""
    ids = texts["id"]
    names = [f"{ids[row]:.60}: {texts[column][row]!r:.40}" if column else f"{ids[row]:.60}" for row in rows]
    return list_some(names, SHOWN)


def _check_texts(where: str, texts: Texts) -> None:
    for column, parted in (("input", True), ("label", False)):
        empty = _find(texts[column], lambda text: is_blank(text.replace(EOS, "") if parted else text))  # noqa: B023
        if empty:
            raise UserError(f"{where}: {column} is empty in row {_name_rows(texts, empty)}; expected text")
    for column in texts:
        long = _find(texts[column], lambda text: len(text) > MOST_CHARACTERS)
        if long:
            raise UserError(
                f"{where}: {column} has more than {MOST_CHARACTERS} characters in row "
                f"{_name_rows(texts, long)}"
            )


def _check_options(where: str, texts: Texts, options: Sequence[Sequence[str]]) -> None:
    for identity, own, label in zip(texts["id"], options, texts["label"], strict=True):
        if fault := find_option_fault(label, own):
            raise UserError(f"{where}: row {identity:.60}: {fault}")


def _check_values(where: str, texts: Texts) -> None:
    bad = _find(texts["label"], lambda label: evaluate_equation(label) is None)
    if bad:
        raise UserError(
            f"{where}: {len(bad)} of {len(texts['label'])} gold equations have no value, so that no answer "
            f"is right: row {_name_rows(texts, bad, 'label')}; expected plain arithmetic such as "
            "'(1,000 + 5) / 2', without words, units, '%' or '='"
        )


def _check_teacher_labels(where: str, texts: Texts, demands: Demands) -> list[str]:
    if not demands.teacher_labels:
        return []
    labels = texts["teacher_label"]
    empty = _find(labels, is_blank)
    if len(empty) == len(labels):
        raise UserError(
            f"{where}: no row has a teacher_label, and 'labels' of the config has 'teacher'; expected the "
            "teacher's labels in column 'teacher_label', or 'labels' without 'teacher'"
        )
    if not empty:
        return []
    rows = _name_rows(texts, empty)
    found = f"{where}: {len(empty)} of {len(labels)} rows have no teacher_label: row {rows}"
    if not demands.published:
        raise UserError(
            f"{found}; expected one in each row, because 'labels' of the config has 'teacher': fill them in "
            "or leave these rows out"
        )
    return [f"{found}; runs with labels 'teacher' learn to write nothing there, as in the published code"]


def _check_rationales(where: str, texts: Texts, demands: Demands) -> list[str]:
    rationales, methods = texts["rationale"], ", ".join(demands.rationales)
    empty = _find(rationales, is_blank) if methods else []
    if not empty:
        return []
    if len(empty) == len(rationales):
        raise UserError(
            f"{where}: no row has a rationale, and students of {methods} learn to write them; expected the "
            "teacher's in column 'rationale', or methods without a rationale task"
        )
    return [
        f"{where}: {len(empty)} of {len(rationales)} rows have no rationale: row {_name_rows(texts, empty)}; "
        f"students of {methods} learn to write nothing there"
    ]


def _compare_teachers(name: str, texts: dict[str, Texts], answer: str) -> list[str]:
    """Return a line for each split on which the teacher is right far more, or less, often than on train.

    Its labels there may be another split's. Rows without a teacher's label do not count.
    """
    verdicts = {
        split: [
            is_right(answer, found, gold)
            for found, gold in zip(own["teacher_label"], own["label"], strict=True)
            if not is_blank(found)
        ]
        for split, own in texts.items()
    }
    train = verdicts["train"]
    lines = []
    for split in ("valid", "test"):
        other = verdicts[split]
        if not train or not other:
            continue
        here, there = sum(train) / len(train), sum(other) / len(other)
        if abs(here - there) > GAP and _compute_chance(train, other) < SURE:
            lines.append(
                f"dataset '{name}': the teacher is right on {here:.1%} of train and on {there:.1%} of "
                f"{split}; its outputs for one of them may be in another order, or another split's"
            )
    return lines


def _compute_chance(some: Sequence[bool], others: Sequence[bool]) -> float:
    """Return the p-value of Fisher's exact test, two-sided, that both are right equally often."""
    from scipy.stats import fisher_exact

    table = [[sum(each), len(each) - sum(each)] for each in (some, others)]
    return float(fisher_exact(table).pvalue)


def _compare_spellings(
    name: str, texts: dict[str, Texts], options: dict[str, list[list[str]]], answer: str
) -> list[str]:
    """Return lines about labels of a closed set that differ only by case or white space, or have it around.

    Without options in the rows, a set is closed where it has few labels for many rows.
    """
    if answer != "text":
        return []
    for split, rows in options.items():
        for row, own in enumerate(rows):
            if same := _find_same(own):
                return [
                    f"dataset '{name}', {split}: row {texts[split]['id'][row]:.60}: options that differ only "
                    f"by case or white space: {same}; each counts as a label of its own"
                ]
    labels = [label for own in texts.values() for label in own["label"]]
    lines = []
    if len(set(labels)) <= FEW_LABELS and (same := _find_same(labels)):
        lines.append(
            f"dataset '{name}': labels that differ only by case or white space: {same}; an answer in the "
            "case of another row's label is wrong (white space does not count)"
        )
    around = sorted({label for label in labels if label != label.strip()})
    if around:
        lines.append(
            f"dataset '{name}': labels with white space around them: "
            f"{list_some([repr(label)[:40] for label in around], SHOWN)}; it is not a part of an answer"
        )
    return lines


def _find_same(labels: Iterable[str]) -> str:
    """Return the first labels that are one when case and white space do not count; '' where none are."""
    spellings: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        spellings.setdefault(" ".join(label.casefold().split()), []).append(label)
    several = next((same for same in spellings.values() if len(same) > 1), [])
    return list_some([repr(label)[:40] for label in several], SHOWN)

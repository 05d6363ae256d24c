"""Cut a validation split, choose a training subset, and describe what the splits hold."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING, TypedDict

from cotdistill.common.errors import UserError
from cotdistill.common.files import digest
from cotdistill.common.seeds import derive
from cotdistill.data.answers import is_right
from cotdistill.data.rows import COLUMNS

if TYPE_CHECKING:
    from datasets import DatasetDict


def cut_valid(n: int) -> tuple[list[int], list[int]]:
    """Return (train, valid) row numbers of `n` training rows where the data has no validation split.

    This is the published cut, `Dataset.train_test_split(test_size=0.1, seed=0)`, in its order: it depends on
    the number of rows alone. Raises UserError for fewer than 2 rows.
    """
    from datasets import Dataset

    if n < 2:
        raise UserError(f"cannot cut a validation split from {n} training rows; expected at least 2")
    parts = Dataset.from_dict({"row": range(n)}).train_test_split(test_size=0.1, seed=0)
    return list(parts["train"]["row"]), list(parts["test"]["row"])


def choose_subset(n: int, fraction: float, seed: int, dataset: str) -> list[int]:
    """Return the row numbers of the training subset: the first ceil(fraction * n) of a permutation of n rows.

    The permutation depends on `dataset` and `seed` alone, so smaller subsets are nested in larger ones and
    every method of one repetition gets the same rows; fraction 1 keeps all rows. `fraction` counts as the
    decimal it is written as (0.07 of 100 rows is 7, although 0.07 * 100 > 7).

    The published codes differ: they draw with the run's seed before the validation split is cut, so their
    subsets are not nested and their validation split shrinks with the fraction. Here valid is the same for
    every fraction.

    Raises UserError for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction {fraction}: expected a number above 0 and at most 1")
    order = list(range(n))
    Random(derive("subset", dataset=dataset, seed=seed)).shuffle(order)
    return order[: math.ceil(Fraction(repr(float(fraction))) * n)]


class Accuracy(TypedDict):
    """How often the teacher's label is right in one split."""

    accuracy: float | None
    """correct / n; None where no output has a label, as nothing is known of the teacher then"""
    correct: int
    n: int
    unparsed: int
    """outputs without a label; they count as wrong"""


def measure_teacher(dataset: DatasetDict, answer: str) -> dict[str, Accuracy]:
    """Return how often the teacher's label is the gold one, by split. answer: the kind of answer.

    For train it is the number that the published code prints as "LLM Train Acc".
    """
    result: dict[str, Accuracy] = {}
    for split, rows in dataset.items():
        labels, teacher = list(rows["label"]), list(rows["teacher_label"])
        unparsed = teacher.count("")
        correct = sum(is_right(answer, found, gold) for found, gold in zip(teacher, labels, strict=True))
        result[str(split)] = Accuracy(
            accuracy=correct / len(labels) if unparsed < len(labels) else None,
            correct=correct,
            n=len(labels),
            unparsed=unparsed,
        )
    return result


def digest_ids(dataset: DatasetDict) -> dict[str, str]:
    """Return the digest (16 hex digits) of each split's ids in their order.

    Two machines that read a split alike have the same one, whatever code cut the texts.
    """
    return {str(split): digest(list(rows["id"])) for split, rows in dataset.items()}


def compute_checksum(dataset: DatasetDict) -> str:
    """Return the SHA-256 (16 hex digits) over all rows of all splits in order."""
    total = hashlib.sha256()
    for split in sorted(dataset):
        total.update(f"{split} {len(dataset[split])}\n".encode())
        for batch in dataset[split].iter(batch_size=1000):
            columns = [batch[column] for column in COLUMNS]
            for values in zip(*columns, strict=True):
                total.update(json.dumps(values).encode() + b"\n")
    return total.hexdigest()[:16]

"""The columns of an example, the same for every adapter."""

from __future__ import annotations

from typing import TypedDict


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


COLUMNS = tuple(Row.__annotations__)

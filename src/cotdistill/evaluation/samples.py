"""A few test examples side by side: input, gold label, and what each run predicted and gave as its reason.

Pure functions of predictions. Generated text is hostile: it is escaped wherever it is shown.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.seeds import derive

LONGEST = 400
"""characters of a text that are shown"""
COLUMNS = ("input", "gold", "by", "prediction", "correct", "rationale")
TEACHER = "teacher"


@dataclass(frozen=True)
class Line:
    """One row of the table: an example as one run, or the teacher, saw it."""

    input: str
    gold: str
    by: str
    """name of the run (its method, say), or `teacher`"""
    prediction: str
    """empty on the teacher's lines, as is `correct`"""
    correct: bool | None
    rationale: str
    """empty where there is none"""


def choose(predictions: Mapping[str, Sequence[Mapping[str, Any]]], count: int, seed: int = 0) -> list[Line]:
    """The lines of `count` examples that all runs have: the teacher's first, then a line for each run.

    predictions: rows of `predictions.jsonl` by the name of the run. Which examples are chosen depends on
    their ids and the seed alone, not on the order of runs or rows. Raises UserError when two runs give an
    example another input or gold label: they are not runs of one dataset.
    """
    rows = {name: {str(row["id"]): row for row in given} for name, given in predictions.items()}
    if not rows:
        return []
    common = set.intersection(*(set(by_id) for by_id in rows.values()))
    ids = sorted(common, key=lambda identity: (derive("sample", seed=seed, example=identity), identity))
    return [line for identity in ids[:count] for line in _lines(identity, rows)]


def _lines(identity: str, rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Line]:
    found = {name: by_id[identity] for name, by_id in rows.items()}
    texts = {(row["input"], row["gold"]) for row in found.values()}
    if len(texts) > 1:
        raise UserError(f"example '{identity:.60}': two runs give it another input or gold label")
    ((text, gold),) = texts
    teachers = [row["teacher_rationale"] for row in found.values() if row.get("teacher_rationale")]
    lines = [Line(text, gold, TEACHER, "", None, teachers[0])] if teachers else []
    return lines + [
        Line(text, gold, name, row["prediction"], row["correct"], row.get("rationale") or "")
        for name, row in found.items()
    ]


def cut(line: Line) -> Line:
    """The line as it is shown: texts of at most `LONGEST` characters, without breaks and control characters.

    What is kept of it is short, and can be encoded whatever a model wrote.
    """
    texts = (line.input, line.gold, line.by, line.prediction, line.rationale)
    given, gold, by, prediction, rationale = map(_short, texts)
    return Line(given, gold, by, prediction, line.correct, rationale)


def markdown(lines: Sequence[Line]) -> str:
    """A Markdown table; input and gold stand on the first line of an example alone."""
    rows = [[_markdown(text) for text in row] for row in _cells(lines)]
    head = [list(COLUMNS), ["---"] * len(COLUMNS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in head + rows)


def table(lines: Sequence[Line]) -> str:
    """An HTML table without styles or scripts, all text escaped."""
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = ("".join(f"<td>{html.escape(text)}</td>" for text in row) for row in _cells(lines))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="samples">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n'


def _cells(lines: Sequence[Line]) -> list[list[str]]:
    """The texts of each row: cut, on one line, without control characters."""
    rows, before = [], ("", "")
    for line in map(cut, lines):
        example = (line.input, line.gold)
        correct = "" if line.correct is None else "yes" if line.correct else "no"
        shown = ("", "") if example == before else example
        before = example
        rows.append([*shown, line.by, line.prediction, correct, line.rationale])
    return rows


def _short(text: str) -> str:
    # `isprintable` refuses control and format characters, such as those that turn the writing direction
    one_line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST]).split())
    return one_line if len(one_line) <= LONGEST else one_line[: LONGEST - 1].rstrip() + "…"


def _markdown(text: str) -> str:
    escaped = html.escape(text, quote=False)
    # a numeric reference is text to every reader of Markdown, also within a table
    return "".join(f"&#{ord(c)};" if c in "\\|`*_[]~$!" else c for c in escaped)

"""The sample table: a few test examples a dataset, with what each method answered and the reason it gave."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from cotdistill.common.files import read_jsonl
from cotdistill.evaluation import samples
from cotdistill.report.webpage import document
from cotdistill.runs.grid import Run

EXAMPLES = 5
"""test examples of each dataset and student"""

_GROUP = ["dataset", "student", "labels", "fraction", "seed"]
_RULE = (
    "Which test examples stand here follows from their ids alone, not from what was answered, and they are "
    "the same for all seeds. The answers are those of the checkpoint chosen on validation. Texts are cut at "
    f"{samples.LONGEST} characters; nothing that a model wrote is checked for being true."
)
_NONE = "No finished run has generated rationales: no samples to show."


def sample_rows(runs: Sequence[Run], data: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Rows of the table `samples` (SAMPLE_COLUMNS): of each dataset and student `EXAMPLES` test examples.

    Shown are the methods that generate rationales, under the labels, fraction and seed that most of them
    have finished (the larger fraction, then the first in the grid, where several have as many).

    runs: finished, in the order of the grid, their files sound. data: checksum of each run's data by its
    id; runs that saw other data share no table. Raises UserError where a file cannot be read.
    """
    pairs: dict[tuple[str, str], dict[tuple[Any, ...], list[Run]]] = {}
    for run in runs:
        groups = pairs.setdefault((run.dataset.name, run.student.name), {})
        groups.setdefault((run.labels, run.fraction, run.seed, data.get(run.id)), []).append(run)
    rows = []
    for groups in pairs.values():
        group = max(groups, key=lambda found: (len(groups[found]), found[1]))
        rows += _rows(groups[group])
    return rows


def _rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    predictions = {run.method.name: read_jsonl(run.files.predictions) for run in runs}
    # one that was asked for and is empty is an answer too
    written = {
        name: lines
        for name, lines in predictions.items()
        if any(isinstance(line.get("rationale"), str) for line in lines)
    }
    axes = {axis: runs[0].axes[axis] for axis in _GROUP}
    return [axes | asdict(samples.cut(line)) for line in samples.choose(written, EXAMPLES)]


def markdown(table: pd.DataFrame, experiment: str) -> str:
    """The table as Markdown, a section a dataset and student. table: columns SAMPLE_COLUMNS."""
    parts = [f"# {experiment}: test examples\n", f"{_RULE if len(table) else _NONE}\n"]
    for title, facts, lines in _sections(table):
        parts += [f"## {title}\n", f"{facts}\n", samples.markdown(lines)]
    return "\n".join(parts)


def page(table: pd.DataFrame, experiment: str) -> str:
    """The same as a page of HTML for the report, see `webpage.document`."""
    parts = [f"<p>{_RULE if len(table) else _NONE}</p>"]
    for title, facts, lines in _sections(table):
        parts.append(f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(facts)}</p>\n{samples.table(lines)}")
    return document(f"{experiment}: test examples", "\n".join(parts))


def _sections(table: pd.DataFrame) -> list[tuple[str, str, list[samples.Line]]]:
    """(heading, whose answers, lines) of each dataset and student, in the order of the table."""
    found = []
    for (dataset, student, labels, fraction, seed), rows in table.groupby(_GROUP, sort=False):
        facts = f"{str(labels).capitalize()} labels, {100 * fraction:g}% of the training data, seed {seed}."
        found.append((f"{dataset}, {student}", facts, _lines(rows)))
    return found


def _lines(rows: pd.DataFrame) -> list[samples.Line]:
    cells = rows[list(samples.COLUMNS)].astype(object)
    return [samples.Line(*row) for row in cells.where(cells.notna(), None).to_numpy().tolist()]

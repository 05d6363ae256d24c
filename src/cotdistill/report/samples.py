"""Render the table of samples: a few test examples a dataset, with each method's answer and rationale.

What a model wrote is hostile text: it is escaped in every format.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from cotdistill.common.text_tables import html_table, markdown_table
from cotdistill.report.webpage import wrap_page
from cotdistill.tables.columns import BLOCK
from cotdistill.tables.samples import LONGEST, Sample, cut_sample

COLUMNS = ("input", "gold", "by", "prediction", "correct", "rationale")

_RULE = (
    "Which test examples stand here follows from their ids alone, not from what was answered, and they are "
    "the same for all seeds. The answers are those of the checkpoint chosen on validation. Texts are cut at "
    f"{LONGEST} characters; nothing that a model wrote is checked for being true."
)
_NONE = "No finished run has generated rationales: no samples to show."


def render_markdown(table: pd.DataFrame, experiment: str) -> str:
    """Return the samples as Markdown, a section a dataset and student. table: columns SAMPLE_COLUMNS."""
    parts = [f"# {experiment}: test examples\n", f"{_RULE if len(table) else _NONE}\n"]
    for title, facts, samples in _split_sections(table):
        parts += [f"## {title}\n", f"{facts}\n", render_markdown_table(samples)]
    return "\n".join(parts)


def render_page(table: pd.DataFrame, experiment: str) -> str:
    """Return the same as a page of HTML, see `webpage.wrap_page`."""
    parts = [f"<p>{_RULE if len(table) else _NONE}</p>"]
    for title, facts, samples in _split_sections(table):
        parts.append(f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(facts)}</p>")
        parts.append(render_html_table(samples))
    return wrap_page(f"{experiment}: test examples", "\n".join(parts))


def _split_sections(table: pd.DataFrame) -> list[tuple[str, str, list[Sample]]]:
    """Return (heading, whose answers, samples) of each dataset and student, in the order of the table."""
    found = []
    groups = table.groupby([*BLOCK, "seed"], sort=False)
    for (dataset, student, labels, fraction, seed), rows in groups:
        facts = f"{str(labels).capitalize()} labels, {100 * fraction:g}% of the training data, seed {seed}."
        found.append((f"{dataset}, {student}", facts, _read_samples(rows)))
    return found


def _read_samples(rows: pd.DataFrame) -> list[Sample]:
    cells = rows[list(COLUMNS)].astype(object)
    return [Sample(*row) for row in cells.where(cells.notna(), None).to_numpy().tolist()]


def render_markdown_table(samples: Sequence[Sample]) -> str:
    """Return samples as a Markdown table; input and gold are on the first row of an example alone."""
    rows = [[_escape(text) for text in row] for row in _build_rows(samples)]
    return markdown_table(COLUMNS, rows, aligned=False)


def render_html_table(samples: Sequence[Sample]) -> str:
    """Return the same as an HTML table without styles or scripts."""
    return html_table(COLUMNS, _build_rows(samples), "samples")


def _build_rows(samples: Sequence[Sample]) -> list[list[str]]:
    """Return the texts of each row: cut, on one line, without control characters."""
    rows, before = [], ("", "")
    for sample in map(cut_sample, samples):
        example = (sample.input, sample.gold)
        correct = "" if sample.correct is None else "yes" if sample.correct else "no"
        shown = ("", "") if example == before else example
        before = example
        rows.append([*shown, sample.by, sample.prediction, correct, sample.rationale])
    return rows


def _escape(text: str) -> str:
    escaped = html.escape(text, quote=False)
    # a numeric reference is text to every reader of Markdown, also within a table
    return "".join(f"&#{ord(c)};" if c in "\\|`*_[]~$!" else c for c in escaped)

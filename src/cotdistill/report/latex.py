"""Render the comparison as LaTeX tables in the style of booktabs; the best of each block in bold."""

from __future__ import annotations

import re

import pandas as pd

from cotdistill.common.text_tables import latex_rows
from cotdistill.report.render import (
    Section,
    build_measure_tables,
    build_sections,
    list_measure_notes,
    list_notes,
)

# escaped with a replacement a character, so that no replacement is escaped again
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": "$-$",
}


def render_latex(comparison: pd.DataFrame, results: pd.DataFrame, measures: pd.DataFrame) -> str:
    """Return the comparison, and the measures, as LaTeX table environments; needs booktabs and graphicx."""
    name = escape(str(results["experiment"].iloc[0]))
    notes = list_notes(comparison, results)
    texts = [_render_table(f"{name}: comparison of methods", build_sections(comparison), notes)]
    groups: dict[str, list[Section]] = {}
    tables = build_measure_tables(comparison, measures)
    for group, section in tables:
        groups.setdefault(group, []).append(section)
    shown = ["mean ± standard deviation over seeds.", *list_measure_notes(tables)]
    texts += [_render_table(f"{name}: {escape(group)}", parts, shown) for group, parts in groups.items()]
    head = "% needs \\usepackage{booktabs} and \\usepackage{graphicx}; written by `cotdistill compare`\n"
    return head + "\n".join(texts)


def _render_table(caption: str, parts: list[Section], notes: list[str]) -> str:
    header = max((part.header for part in parts), key=len)
    columns = "ll" + "l" * len(header)
    names = [_escape_cell(text) for text in ["dataset", "student", *header]]
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{caption}}}",
        "% shrunk to the text width where it is wider",
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        latex_rows(names, [_build_rows(part, len(header)) for part in parts]),
        "\\end{tabular}}",
        "\\par\\smallskip\\footnotesize\\raggedright",
    ]
    lines += [f"{escape(note)}\\par" for note in notes]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _build_rows(part: Section, columns: int) -> list[list[str]]:
    """Return the rows of a section, filled up to `columns` cells, below its dataset and student."""
    rows = []
    for number, row in enumerate(part.rows):
        first = [part.dataset, part.student] if number == 0 else ["", ""]
        cells = [_escape_cell(text) for text in [*first, *row, *[""] * (columns - len(row))]]
        for column in range(len(row)):
            if part.is_bold(number, column):
                cells[2 + column] = f"\\textbf{{{cells[2 + column]}}}"
        rows.append(cells)
    return rows


def escape(text: str) -> str:
    """Return `text` with every character that LaTeX reads as a command made literal."""
    return "".join(_LATEX.get(character, character) for character in text)


def _escape_cell(text: str) -> str:
    # a hyphen before a number is a minus sign; a cell that starts with '[' stands in braces, because
    # after a row end LaTeX would read it as an optional argument
    text = re.sub(r"(^|[\[ ])-(?=\d)", r"\1$-$", escape(text))
    return f"{{{text}}}" if text.startswith("[") else text

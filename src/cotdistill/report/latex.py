"""The comparison as LaTeX tables in the style of booktabs; the best of each block in bold."""

from __future__ import annotations

import re

import pandas as pd

from cotdistill.report.render import Section, footnotes, measure_tables, sections

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


def latex(comparison: pd.DataFrame, results: pd.DataFrame, measures: pd.DataFrame) -> str:
    """The comparison, and the measures, as LaTeX table environments; needs booktabs and graphicx."""
    name = escape(str(results["experiment"].iloc[0]))
    notes = footnotes(comparison, results)
    texts = [_table(f"{name}: comparison of methods", sections(comparison), notes)]
    groups: dict[str, list[Section]] = {}
    for group, section in measure_tables(comparison, measures):
        groups.setdefault(group, []).append(section)
    shown = ["mean ± standard deviation over seeds."]
    texts += [_table(f"{name}: {escape(group)}", parts, shown) for group, parts in groups.items()]
    head = "% needs \\usepackage{booktabs} and \\usepackage{graphicx}; written by `cotdistill compare`\n"
    return head + "\n".join(texts)


def _table(caption: str, parts: list[Section], notes: list[str]) -> str:
    header = max((part.header for part in parts), key=len)
    columns = "ll" + "l" * len(header)
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{caption}}}",
        "% shrunk to the text width where it is wider",
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        "\\toprule",
        _latex_row([_cell(text) for text in ["dataset", "student", *header]]),
    ]
    for part in parts:
        lines.append("\\midrule")
        for number, row in enumerate(part.rows):
            first = [part.dataset, part.student] if number == 0 else ["", ""]
            cells = [_cell(text) for text in [*first, *row, *[""] * (len(header) - len(row))]]
            for column in range(len(row)):
                if part.bold(number, column):
                    cells[2 + column] = f"\\textbf{{{cells[2 + column]}}}"
            lines.append(_latex_row(cells))
    lines += ["\\bottomrule", "\\end{tabular}}", "\\par\\smallskip\\footnotesize\\raggedright"]
    lines += [f"{escape(note)}\\par" for note in notes]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def escape(text: str) -> str:
    """`text` with every character that LaTeX reads as a command made literal."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(text: str) -> str:
    # a hyphen before a number is a minus sign; a cell that starts with '[' stands in braces, because
    # after a row end LaTeX would read it as an optional argument
    text = re.sub(r"(^|[\[ ])-(?=\d)", r"\1$-$", escape(text))
    return f"{{{text}}}" if text.startswith("[") else text

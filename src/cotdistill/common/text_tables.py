"""Write tables of texts as Markdown, plain text, HTML or LaTeX; the library tabulate lays them out."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from tabulate import SEPARATING_LINE, DataRow, Line, TableFormat, tabulate

Row = Sequence[str]

_MARKDOWN = TableFormat(
    lineabove=None,
    linebelowheader=Line("| ", "-", " | ", " |"),
    linebetweenrows=None,
    linebelow=None,
    headerrow=None,
    datarow=DataRow("| ", " | ", " |"),
    padding=0,
    with_header_hide=None,
)
_BOOKTABS = TableFormat(
    lineabove=Line(r"\toprule", "", "", ""),
    linebelowheader=Line(r"\midrule", "", "", ""),
    linebetweenrows=None,
    linebelow=Line(r"\bottomrule", "", "", ""),
    headerrow=None,
    datarow=DataRow("", " & ", r" \\"),
    padding=0,
    with_header_hide=None,
)


def markdown_table(header: Row, rows: Iterable[Row], aligned: bool = True) -> str:
    """Return a Markdown table, which ends in a line break.

    The cells are Markdown, of one line each; only `|` is escaped. `aligned` pads them, so that the columns
    can be read in a terminal; without it a row is as long as its texts.
    """
    top, *body = [tuple(cell.replace("|", "\\|") for cell in row) for row in [header, *rows]]
    rule = SEPARATING_LINE if aligned else ("---",) * len(top)
    return _layout([top, rule, *body], _MARKDOWN, aligned) + "\n"


def plain_table(rows: Iterable[Row], indent: str = "") -> str:
    """Return a table for a terminal: columns two spaces apart, aligned on the left, no rules.

    rows: each with as many cells; a header is the first of them. indent: stands before every line.
    """
    text = _layout([tuple(row) for row in rows], "plain", aligned=True)
    return "\n".join(indent + line for line in text.split("\n"))


def html_table(header: Row, rows: Iterable[Row], kind: str, bold: Iterable[tuple[int, int]] = ()) -> str:
    """Return an HTML table. The cells are texts: all of them are escaped.

    kind: the class of the table, for a style. bold: (row, column) of the cells that are shown in bold.
    """
    marked = set(bold)
    body = [
        tuple(
            f"<b>{html.escape(cell)}</b>" if (number, column) in marked else html.escape(cell)
            for column, cell in enumerate(row)
        )
        for number, row in enumerate(rows)
    ]
    text = tabulate(
        body, [html.escape(name) for name in header], "unsafehtml", stralign=None, disable_numparse=True
    )
    return str(text).replace("<table>", f'<table class="{html.escape(kind)}">', 1)


def latex_rows(header: Row, groups: Iterable[Iterable[Row]]) -> str:
    r"""Return the rows of a LaTeX `tabular` with the rules of booktabs, one above each group of rows.

    The cells are LaTeX: nothing is escaped.
    """
    rows: list[Row] = [tuple(header)]
    for group in groups:
        rows += [SEPARATING_LINE, *map(tuple, group)]
    return _layout(rows, _BOOKTABS, aligned=False)


def _layout(rows: Sequence[Row], layout: TableFormat | str, aligned: bool) -> str:
    # a tuple is never taken for a rule, whatever its cells hold; without alignment a text stays as it is
    return str(tabulate(rows, (), layout, stralign="left" if aligned else None, disable_numparse=True))

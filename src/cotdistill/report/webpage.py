"""Pages of HTML that need nothing else: the report shows these, and offers other tables as files only."""

from __future__ import annotations

import html

import pandas as pd

from cotdistill.report.render import (
    ELSEWHERE,
    Section,
    footnotes,
    measure_tables,
    reported_elsewhere,
    sections,
)

_STYLE = (
    "body { font-family: sans-serif; font-size: 14px; margin: 1.5rem; color: #111; background: #fff; }"
    " p, ul { max-width: 60rem; } table { border-collapse: collapse; }"
    " th { text-align: left; border-bottom: 2px solid #111; }"
    " th, td { padding: 0.25rem 0.6rem; vertical-align: top; }"
    " .numbers td { white-space: nowrap; border-bottom: 1px solid #ddd; }"
    " .samples { width: 100%; } .samples td { overflow-wrap: anywhere; }"
    " .samples td:nth-child(3) { white-space: nowrap; }"
    # the first line of an example is the one that bears its input
    " .samples tr:has(td:first-child:not(:empty)) td { border-top: 1px solid #888; padding-top: 0.5rem; }"
)


def document(title: str, body: str) -> str:
    """A whole page: no script, nothing from elsewhere, and ASCII alone. body: HTML. title: text."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title>\n<style>{_STYLE}</style>'
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><h1>{html.escape(title)}</h1>\n'
        f"{body}\n</body></html>\n"
    )
    # the report hands a page to the browser with no word on its encoding
    return page.encode("ascii", "xmlcharrefreplace").decode()


def comparison_page(comparison: pd.DataFrame, results: pd.DataFrame, measures: pd.DataFrame) -> str:
    """The comparison, its measures and its notes as a page. Arguments as in `render.markdown`."""
    parts, groups = [], measure_tables(comparison, measures)
    for section in sections(comparison):
        parts.append(f"<h2>{html.escape(f'{section.dataset}, {section.student}')}</h2>")
        facts = html.escape(section.facts[:1].upper() + section.facts[1:])
        parts.append(f"<p>{facts}.</p>\n{_table(section)}")
        for group, table in groups:
            if (table.dataset, table.student) == (section.dataset, section.student):
                parts.append(f"<h3>{html.escape(group)}</h3>\n{_table(table)}")
    header, rows = reported_elsewhere(comparison)
    if rows:
        parts.append(f"<h2>{html.escape(ELSEWHERE)}</h2>\n{_table(Section('', '', '', header, rows, []))}")
    notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in footnotes(comparison, results))
    parts.append(f"<h2>Notes</h2>\n<ul>{notes}</ul>")
    return document(f"{results['experiment'].iloc[0]}: comparison of methods", "\n".join(parts))


def _table(section: Section) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in section.header)
    rows = []
    for number, row in enumerate(section.rows):
        cells = [
            f"<td><b>{html.escape(cell)}</b></td>"
            if section.bold(number, column)
            else f"<td>{html.escape(cell)}</td>"
            for column, cell in enumerate(row)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f'<table class="numbers">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'

"""Render pages of HTML that need no other file, as the report shows no others."""

from __future__ import annotations

import html

import pandas as pd

from cotdistill.common.text_tables import html_table
from cotdistill.report.render import (
    ELSEWHERE,
    Section,
    build_measure_tables,
    build_sections,
    capitalize,
    list_measure_notes,
    list_notes,
    tabulate_reported,
)

_STYLE = (
    "body { font-family: sans-serif; font-size: 14px; margin: 1.5rem; color: #111; background: #fff; }"
    " p, ul { max-width: 60rem; } table { border-collapse: collapse; }"
    " th { text-align: left; border-bottom: 2px solid #111; }"
    " th, td { padding: 0.25rem 0.6rem; vertical-align: top; }"
    " .numbers td { white-space: nowrap; border-bottom: 1px solid #ddd; }"
    " .samples { width: 100%; } .samples td { overflow-wrap: anywhere; }"
    " .samples td:nth-child(3) { white-space: nowrap; }"
    # the first line of an example is the one with its input
    " .samples tr:has(td:first-child:not(:empty)) td { border-top: 1px solid #888; padding-top: 0.5rem; }"
)


def wrap_page(title: str, body: str) -> str:
    """Return a whole page: no script, nothing from elsewhere, and ASCII alone. body: HTML. title: text."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title>\n<style>{_STYLE}</style>'
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><h1>{html.escape(title)}</h1>\n'
        f"{body}\n</body></html>\n"
    )
    # the report hands a page to the browser with no word on its encoding
    return page.encode("ascii", "xmlcharrefreplace").decode()


def render_comparison_page(comparison: pd.DataFrame, results: pd.DataFrame, measures: pd.DataFrame) -> str:
    """Return the comparison, its measures and notes as a page. Arguments as in `render.render_markdown`."""
    parts, groups = [], build_measure_tables(comparison, measures)
    for section in build_sections(comparison):
        parts.append(f"<h2>{html.escape(f'{section.dataset}, {section.student}')}</h2>")
        facts = html.escape(capitalize(section.facts))
        parts.append(f"<p>{facts}.</p>\n{_render_section(section)}")
        for group, table in groups:
            if (table.dataset, table.student) == (section.dataset, section.student):
                parts.append(f"<h3>{html.escape(group)}</h3>\n{_render_section(table)}")
    header, rows = tabulate_reported(comparison)
    if rows:
        parts.append(f"<h2>{html.escape(ELSEWHERE)}</h2>\n{html_table(header, rows, 'numbers')}")
    texts = [*list_notes(comparison, results), *list_measure_notes(groups)]
    notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in texts)
    parts.append(f"<h2>Notes</h2>\n<ul>{notes}</ul>")
    return wrap_page(f"{results['experiment'].iloc[0]}: comparison of methods", "\n".join(parts))


def _render_section(section: Section) -> str:
    places = [(row, column) for row in range(len(section.rows)) for column in range(len(section.header))]
    bold = [place for place in places if section.is_bold(*place)]
    return html_table(section.header, section.rows, "numbers", bold)

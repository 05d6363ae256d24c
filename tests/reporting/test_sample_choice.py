"""The sample table: which examples, in which order, and nothing unescaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.report.samples import render_html_table, render_markdown_table
from cotdistill.runs.documents import Answer
from cotdistill.tables.samples import LONGEST, Sample, choose_samples

TEXTS = st.text(max_size=60) | st.sampled_from([
    "<script>alert(1)</script>", "a | b", "a\nb", "`x` *y* [z](http://e)", "&amp;", '"\'', "\u202eabc", "\\|",
])  # fmt: skip


def rows(count: int = 20, **changes: Any) -> list[Answer]:
    plain = [Answer(f"e{n}", f"in {n}", "g", f"p{n}", n % 2 == 0, 0.5, rationale=f"own {n}",
                    teacher_rationale=f"theirs {n}") for n in range(count)]  # fmt: skip
    return [replace(answer, **changes) for answer in plain]


def test_each_example_has_the_teachers_line_and_one_for_each_run():
    plain = rows(rationale=None, teacher_rationale=None)
    lines = choose_samples({"dss": rows(), "finetune": plain}, 3)
    assert [line.by for line in lines] == ["teacher", "dss", "finetune"] * 3
    assert len({line.input for line in lines}) == 3
    number = lines[0].input.removeprefix("in ")
    right = int(number) % 2 == 0
    assert lines[0].rationale == f"theirs {number}" and lines[0].correct is None
    assert lines[1] == Sample(f"in {number}", "g", "dss", f"p{number}", right, f"own {number}")
    assert lines[2].rationale == ""


def test_the_choice_depends_on_seed_and_ids_alone():
    first = choose_samples({"a": rows(), "b": rows()}, 5)
    other = choose_samples({"b": rows()[::-1], "a": rows()}, 5)
    assert [line.input for line in first] == [line.input for line in other]
    assert {line.input for line in first} != {line.input for line in choose_samples({"a": rows()}, 5, seed=1)}


def test_examples_that_a_run_lacks_are_not_shown():
    lines = choose_samples({"a": rows(20), "b": rows(4)}, 50)
    assert {line.input for line in lines} == {f"in {n}" for n in range(4)}
    assert choose_samples({}, 5) == [] and choose_samples({"a": []}, 5) == []


def test_runs_of_two_datasets_are_refused():
    with pytest.raises(UserError, match="example 'e0': two runs give it another input"):
        choose_samples({"a": rows(1), "b": rows(1, gold="other")}, 1)


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data.rstrip("\n")


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4))
def test_html_shows_the_texts_and_adds_no_element(texts: list[tuple[str, str, str]]):
    lines = [Sample(f"{n}{first}", first, "dss", second, True, third)
             for n, (first, second, third) in enumerate(texts)]  # fmt: skip
    parser = Cells()
    parser.feed(render_html_table(lines))
    assert parser.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert len(parser.cells) == 6 * len(lines)
    for (_, second, third), place in zip(texts, range(0, len(parser.cells), 6), strict=True):
        for text, cell in ((second, parser.cells[place + 3]), (third, parser.cells[place + 5])):
            assert cell == " ".join("".join(c if c.isprintable() else " " for c in text).split())


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_markdown_is_a_table_whatever_the_texts_hold(texts: list[tuple[str, str]]):
    lines = [Sample("in", "g", "dss", first, False, second) for first, second in texts]
    made = render_markdown_table(lines).split("\n")
    assert made[0] == "| input | gold | by | prediction | correct | rationale |" and made[-1] == ""
    assert len(made) == len(lines) + 3
    assert all(line.count("|") == 7 for line in made[:-1])
    body = "\n".join(made[2:])
    assert not re.search(r"[<>`*\[\]\\]", body)


def test_long_texts_are_cut_and_repeated_ones_stand_once():
    lines = [Sample("in", "g", by, "p", True, "word " * 1000) for by in ("dss", "mi")]
    parser = Cells()
    parser.feed(render_html_table(lines))
    assert [parser.cells[0], parser.cells[6]] == ["in", ""]
    assert len(parser.cells[5]) <= LONGEST and parser.cells[5].endswith("…")

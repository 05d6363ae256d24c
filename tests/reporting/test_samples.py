"""The sample table of an experiment: whose answers stand in it, and that hostile text stays text."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from cotdistill.common.files import read_jsonl
from cotdistill.config.models import Experiment
from cotdistill.report.comparison import write_comparison
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.collect import collect
from cotdistill.tables.samples import EXAMPLES, LONGEST
from cotdistill.tables.store import Tables

Made = Callable[..., Experiment]
# a script, a picture from elsewhere, an end of the table, marks of Markdown, controls, half a character
HOSTILE = "<script>alert(1)</script></td></table>\n| a | <img src=http://e/x> [a](b) \u202e\x1b[2J\ud800 é"


def rewrite(run: Run, **changes: Any) -> None:
    path = run.files.predictions
    # in ASCII, as half a character cannot be written otherwise
    path.write_text("".join(f"{json.dumps(line | changes)}\n" for line in read_jsonl(path)))


def test_methods_with_rationales_stand_together(made: Made) -> None:
    experiment = made()
    collect(experiment)
    table = Tables(experiment).samples
    assert list(table["dataset"].unique()) == ["cqa", "svamp"]
    for _, rows in table.groupby("dataset"):
        assert list(rows["by"]) == ["teacher", "dss", "mi"] * EXAMPLES
        assert set(rows["seed"]) == {0} and rows["correct"].isna().sum() == EXAMPLES


def test_seed_and_fraction_are_those_that_most_methods_have(made: Made) -> None:
    missing = ("svamp/tiny/mi/gold/1/0", "svamp/tiny/mi/gold/0.5/0")
    experiment = made(skip=missing, datasets=["svamp"], fractions=[0.5, 1.0])
    collect(experiment, allow_missing=True)
    (found,) = Tables(experiment).samples[["fraction", "seed"]].drop_duplicates().to_numpy().tolist()
    assert found == [1.0, 1]


def test_runs_that_saw_other_data_do_not_stand_together(made: Made, change: Callable[..., None]) -> None:
    experiment = made(datasets=["cqa"], methods=["finetune", "dss", "mi"], seeds=[0])
    run = next(run for run in expand(experiment) if run.method.name == "mi")
    rewrite(run, gold="other")
    change(run, run.files.environment, "data_checksum", "other")
    collect(experiment)
    assert set(Tables(experiment).samples["by"]) == {"teacher", "dss"}


def test_without_rationales_a_sentence_says_so(made: Made) -> None:
    experiment = made(methods=["finetune"], baseline="finetune")
    collect(experiment)
    paths = {path.name: path.read_text() for path in write_comparison(experiment)}
    assert Tables(experiment).samples.empty
    assert "No finished run has generated rationales" in paths["samples.md"]
    assert "<table" not in paths["samples.html"] and "No finished run" in paths["samples.html"]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("field", ["prediction", "rationale", "input", "teacher_rationale"])
def test_hostile_text_stays_text(made: Made, seal: Callable[[Run], None], field: str) -> None:
    experiment = made(datasets=["cqa"], methods=["dss"], seeds=[0])
    (run,) = expand(experiment)
    rewrite(run, **{field: HOSTILE + "long " * LONGEST})
    seal(run)
    collect(experiment)
    paths = {path.name: path for path in write_comparison(experiment)}
    page = paths["samples.html"].read_text(encoding="ascii")
    parser = Tags()
    parser.feed(page)
    frame = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p"}
    assert parser.tags == frame | {"table", "thead", "tbody", "tr", "th", "td"}
    assert parser.attributes == {"lang", "charset", "class"}
    assert "<script>alert(1)</script>" in parser.text and "é" in parser.text
    assert not {"\u202e", "\x1b"} & set(parser.text)
    rows = [line for line in paths["samples.md"].read_text().splitlines() if line.startswith("|")]
    assert all(line.count("|") == 7 for line in rows) and len(rows) == 2 + 2 * EXAMPLES
    assert not any("<" in line or "[" in line for line in rows)

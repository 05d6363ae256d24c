"""The number of groups stands beside that of test examples, and a dataset that is cut anew is named so."""

from __future__ import annotations

import html
from collections.abc import Callable

import pandas as pd
import pytest

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.orchestration.plan import describe
from cotdistill.report.comparison import summarize, write_comparison
from cotdistill.report.figures import difference
from cotdistill.runs.grid import expand
from cotdistill.tables.collect import collect

Made = Callable[..., Experiment]

# the two examples of a story are a group on svamp; cqa has no groups
SIZE = "200 test examples in 100 groups, one example is 0.5 points"
AGAIN = {"name": "svamp_again", "adapter": "svamp", "split": "group-disjoint"}


@pytest.fixture
def both(made: Made) -> Experiment:
    experiment = made(methods=["dss", "mi"])
    collect(experiment)
    return experiment


def test_tables_of_runs_and_examples_tell_the_groups(both: Experiment) -> None:
    tables = AnalysedTables(both)
    counts = tables.results.groupby("dataset")["n_groups"].unique()
    assert counts["svamp"].tolist() == [100] and counts["cqa"].tolist() == [200]
    svamp = tables.examples[tables.examples["dataset"] == "svamp"]
    assert svamp["group"].nunique() == 100 and svamp["example"].nunique() == 200
    assert set(tables.examples.loc[tables.examples["dataset"] == "cqa", "group"]) == {""}
    found = tables.evidence.set_index("dataset")[["n_test", "n_groups"]]
    assert found.loc["svamp"].tolist() == [200, 100] and found.loc["cqa"].tolist() == [200, 200]


def test_every_format_shows_groups_where_there_are_some(both: Experiment) -> None:
    paths = {path.name: path.read_text(encoding="utf-8") for path in write_comparison(both)}
    for text in (summarize(both), paths["comparison.md"], html.unescape(paths["comparison.html"])):
        assert text.count(SIZE) == 1 and text.count("200 test examples, one example is 0.5 points") == 1
    for name in ("comparison.md", "comparison.html", "comparison.tex"):
        assert "the bootstrap resamples each group as one" in html.unescape(paths[name])
    assert "seeds and groups of test examples" in summarize(both)
    assert "svamp (200 test examples in 100 groups)" in paths["verdict.txt"].replace("\n", " ")
    for name in ("comparison.csv", "evidence.csv"):
        table = pd.read_csv(both.folder / "tables" / name).groupby("dataset")["n_groups"].first()
        assert table.to_dict() == {"cqa": 200, "svamp": 100}
    caption = difference.caption(AnalysedTables(both), both)
    assert "resampled as one: svamp 200 test examples in 100 groups." in caption


def test_without_groups_none_are_spoken_of(made: Made) -> None:
    experiment = made(methods=["dss", "mi"], datasets=["cqa"])
    collect(experiment)
    texts = [
        path.read_text(encoding="utf-8") for path in write_comparison(experiment) if path.suffix != ".csv"
    ]
    caption = difference.caption(AnalysedTables(experiment), experiment)
    for text in (*texts, summarize(experiment), caption):
        for general in ("two groups", "share a text count as one group", "(or groups of them)"):
            text = " ".join(text.split()).replace(general, "")
        assert "group" not in text


def test_a_dataset_under_both_splits_is_two_datasets(made: Made) -> None:
    experiment = made(methods=["dss", "mi"], datasets=["svamp", AGAIN])
    runs = {run.dataset.name: run for run in expand(experiment)}
    assert runs["svamp"].hash != runs["svamp_again"].hash
    assert runs["svamp"].prepared != runs["svamp_again"].prepared
    assert "svamp_again: group-disjoint split of svamp" in describe(experiment)
    collect(experiment)
    text = summarize(experiment)
    assert text.count("(group-disjoint split of svamp; gold labels") == 1
    table = AnalysedTables(experiment).comparison.groupby("dataset")["split"].first()
    assert table.to_dict() == {"svamp": "published", "svamp_again": "group-disjoint"}


def test_a_dataset_that_is_cut_anew_has_no_reported_number(made: Made) -> None:
    students = ["google/t5-v1_1-base"]
    experiment = made(methods=["dss"], datasets=["cqa"], students=students, seeds=[0])
    collect(experiment)
    assert AnalysedTables(experiment).comparison["reported"].notna().all()
    again = {"name": "again", "adapter": "cqa", "split": "group-disjoint"}
    experiment = made(experiment="other", methods=["dss"], datasets=[again], students=students, seeds=[0])
    collect(experiment)
    assert AnalysedTables(experiment).comparison["reported"].isna().all()
    write_comparison(experiment)
    assert "Reported by the papers" not in (experiment.folder / "tables" / "comparison.md").read_text()

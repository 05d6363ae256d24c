"""No output prints a number for what was not measured, nor an interval of what cannot be.

The outputs: terminal, Markdown, HTML, LaTeX, CSV, Parquet, the verdict, what figures draw, and MLflow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.data.splits import measure_teacher
from cotdistill.report.comparison import summarize, write_comparison
from cotdistill.report.figures import FIGURES
from cotdistill.runs.documents import Metrics, read_answers, write_answers
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.collect import collect
from cotdistill.tracking import finished, notes

Made = Callable[..., Experiment]
Change = Callable[[Run, Path, str, Any], None]

NO_LABELS = {"accuracy": None, "correct": 0, "n": 200, "unparsed": 200}


def spoil(experiment: Experiment, change: Change, shares: dict[str, list[float]]) -> None:
    """Take away teacher labels, rationale measures and estimates, and set each seed's accuracy."""
    for run in expand(experiment):
        metrics = Metrics.read(run.files.metrics, "")
        answers = read_answers(run.files.predictions)
        share = shares.get(run.method.name, shares["others"])[run.seed]
        right = round(share * len(answers))
        answers = [
            replace(answer, correct=number < right, prediction="a" if number < right else "b")
            for number, answer in enumerate(answers)
        ]
        write_answers(run.files.predictions, answers)
        change(run, run.files.metrics, "strict.test_accuracy", right / len(answers))
        change(run, run.files.metrics, "strict.test_correct", right)
        change(run, run.files.metrics, "teacher", dict.fromkeys(("train", "valid", "test"), NO_LABELS))
        measures = {"calibration": metrics.measures["calibration"]}
        if "rationale" in metrics.measures:
            absent = ("bleu", "rouge1", "rouge2", "rougeL", "repetition", "states_label", "judge_mean",
                      "faithful_prediction", "faithful_gold", "words", "words_teacher")  # fmt: skip
            measures["rationale"] = {
                "n": 200,
                "n_teacher": 0,
                **dict.fromkeys(absent),
                "reasons": {"bleu": "none"},
            }
        change(run, run.files.metrics, "measures", measures)


GRIDS: dict[str, dict[str, list[float]]] = {
    "one seed": {"others": [0.4]},
    "one seed, all alike": {"dss": [0.4], "mi": [0.4], "others": [0.4]},
    "two seeds": {"dss": [0.2, 0.8], "mi": [0.9, 0.1], "others": [0.3, 0.7]},
    "two seeds, all equal": {"others": [0.4, 0.4]},
    "three seeds, wide": {"dss": [0.0, 1.0, 0.1], "mi": [1.0, 0.0, 0.9], "others": [0.5, 0.4, 0.6]},
    "three seeds, all right": {"dss": [0.0, 0.0, 0.0], "others": [1.0, 1.0, 1.0]},
}


@pytest.fixture(params=GRIDS)
def unmeasured(
    request: pytest.FixtureRequest, made: Made, change: Change, seal: Callable[[Run], None]
) -> Experiment:
    shares = GRIDS[request.param]
    experiment = made(datasets=["svamp"], methods=["dss", "mi"], seeds=list(range(len(shares["others"]))))
    spoil(experiment, change, shares)
    for run in expand(experiment):
        seal(run)
    collect(experiment)
    return experiment


def read_pages(experiment: Experiment) -> dict[str, str]:
    """The text of each output that a person reads, by name."""
    pages = {path.name: path.read_text() for path in write_comparison(experiment)}
    return {
        "terminal": summarize(experiment),
        "results.csv": (experiment.folder / "results.csv").read_text(),
        **pages,
    }


def find_bounds(text: str) -> list[tuple[float, float]]:
    plain = text.replace("$-$", "-")
    found = re.findall(r"\[([-+]?[\d.]+), ([-+]?[\d.]+)\]", plain)
    found += re.findall(r"interval ([-+]?[\d.]+) to ([-+]?[\d.]+)", plain)
    return [(float(low), float(high)) for low, high in found]


def test_texts_print_nothing_that_was_not_measured(unmeasured: Experiment) -> None:
    few = len(unmeasured.seeds) < 3
    for name, text in read_pages(unmeasured).items():
        assert not re.search(r"\b[-+]?(nan|inf|None|NaT)\b", text, re.IGNORECASE), name
        assert "teacher has" not in text and "BLEU" not in text and "ROUGE" not in text, name
        for low, high in [] if name.endswith(".csv") else find_bounds(text):
            assert -100 <= low < high <= 100, (name, low, high)
        if name in ("terminal", "comparison.md", "comparison.tex", "comparison.html"):
            assert ("too few seeds" in text or "all seeds equal" in text) or not few, name
            assert "± 0.0" not in text.split("Rationales")[0].split("Calibration")[0], name


def test_tables_are_empty_where_nothing_was_measured(unmeasured: Experiment) -> None:
    tables = AnalysedTables(unmeasured)
    raw = pd.read_parquet(unmeasured.folder / "results.parquet")
    for frame in (tables.results, raw, pd.read_csv(unmeasured.folder / "results.csv")):
        columns = [column for column in frame.columns if column.startswith("teacher_accuracy")]
        assert len(columns) == 3 and frame[columns].isna().all(axis=None)
    assert not set(tables.measures["measure"]) & {"rationale/bleu", "rationale/repetition", "rationale/words"}
    comparison = (
        pd.read_csv(unmeasured.folder / "tables" / "comparison.csv") if read_pages(unmeasured) else None
    )
    assert comparison is not None
    few = (comparison["n_seeds"] < 3) | (comparison["sd"] == 0)
    assert comparison.loc[few, ["low", "high"]].isna().all(axis=None)
    assert comparison.loc[~few, ["low", "high"]].notna().all(axis=None)
    assert comparison["teacher_accuracy"].isna().all()
    assert comparison.loc[comparison["n_seeds"] == 1, "sd"].isna().all()
    known = comparison.dropna(subset=["low"])
    assert ((known["low"] >= 0) & (known["high"] <= 1) & (known["low"] < known["high"])).all()
    for frame in (pd.read_csv(unmeasured.folder / "tables" / "evidence.csv"), tables.evidence):
        bounds = frame.dropna(subset=["low"])
        assert ((bounds["low"] >= -1) & (bounds["high"] <= 1) & (bounds["low"] < bounds["high"])).all()


def test_figures_draw_nothing_that_was_not_measured(unmeasured: Experiment) -> None:
    tables = AnalysedTables(unmeasured)
    for name in FIGURES.names():
        module = FIGURES.module(name)
        figure, caption = module.draw(tables, unmeasured), module.caption(tables, unmeasured)
        words = [
            caption,
            *(text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))),
        ]
        assert not re.search(r"\b(nan|inf|None)\b", " ".join(words)), name
        for ax in figure.axes:
            assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all(), name
            for line in ax.lines:
                assert np.isfinite(np.asarray(line.get_xdata(), dtype=float)).all(), name
    accuracy = FIGURES.module("accuracy").draw(tables, unmeasured).axes[0]
    bars = [line for line in accuracy.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    wide = tables.comparison["low"].notna().sum()
    assert len(bars) == wide and all(0 <= end <= 100 for bar in bars for end in bar.get_xdata())


def test_mlflow_gets_nothing_that_was_not_measured(unmeasured: Experiment) -> None:
    items = finished.select_finished(unmeasured)
    assert items
    for item in items:
        metrics = {metric.key: metric.value for metric in finished.build_metrics(item)}
        assert all(map(math.isfinite, metrics.values()))
        assert not [
            name for name in metrics if name.startswith("teacher/") or "bleu" in name or "rouge" in name
        ]
        assert not re.search(r"\b(nan|None)\b", notes.describe_run(item, "link"))
    for method in ("dss", "mi"):
        own = [item for item in items if item.run.method.name == method]
        for name, interval in notes.compute_intervals(own).items():
            assert math.isnan(interval.low) or interval.low < interval.high, name
            assert math.isnan(interval.low) or len(own) > 2, name
            assert not interval.low < 0 and not (interval.high > 1 and "accuracy" in name), name
        assert not re.search(r"\b(nan|None)\b", notes.describe_cell(own, []))


def test_a_measured_zero_stays_a_zero(made: Made, change: Change) -> None:
    """A teacher that is always wrong, and a student that repeats nothing, are no absence."""
    experiment = made(datasets=["svamp"], methods=["dss", "mi"])
    for run in expand(experiment):
        wrong = {"accuracy": 0.0, "correct": 0, "n": 200, "unparsed": 3}
        change(run, run.files.metrics, "teacher", dict.fromkeys(("train", "valid", "test"), wrong))
        change(run, run.files.metrics, "measures.rationale.repetition", 0.0)
    collect(experiment)
    pages = read_pages(experiment)
    assert "the teacher has 0.0% on test" in pages["terminal"]
    assert "| 0.0 ± 0.0" in pages["comparison.md"]
    metrics = {
        metric.key: metric.value for metric in finished.build_metrics(finished.select_finished(experiment)[0])
    }
    assert metrics["teacher/accuracy_test"] == metrics["rationale/repetition"] == 0


@pytest.mark.parametrize(
    ("labels", "teacher", "accuracy", "unparsed"),
    [
        (["a", "b"], ["", ""], None, 2),
        ([], [], None, 0),
        (["a", "b"], ["", "a"], 0.0, 1),
        (["a", "b"], ["b", "a"], 0.0, 0),
        (["a", "b"], ["a", ""], 0.5, 1),
    ],
)
def test_no_teacher_labels_are_no_bad_teacher(
    labels: list[str], teacher: list[str], accuracy: float | None, unparsed: int
) -> None:
    splits: Any = {"test": {"label": labels, "teacher_label": teacher}}
    found = measure_teacher(splits, "text")["test"]
    assert (found["accuracy"], found["unparsed"], found["n"]) == (accuracy, unparsed, len(labels))


def test_a_history_that_was_not_measured_is_no_curve_and_no_metric(
    made: Made, seal: Callable[[Run], None]
) -> None:
    experiment = made(datasets=["svamp"], methods=["dss", "mi"], seeds=[0], steps=40)
    for run in expand(experiment):
        lines = [json.loads(line) for line in run.files.history.read_text().splitlines()]
        lines = [{k: None if "excess" in k else v for k, v in line.items()} for line in lines]
        run.files.history.write_text("".join(json.dumps(line) + "\n" for line in lines))
        seal(run)
    collect(experiment)
    tables = AnalysedTables(experiment)
    titles = [ax.get_title(loc="left") for ax in FIGURES.module("learning").draw(tables, experiment).axes]
    assert titles and not any("predictability" in title for title in titles)
    for item in finished.select_finished(experiment):
        assert all(math.isfinite(metric.value) for metric in finished.build_metrics(item))

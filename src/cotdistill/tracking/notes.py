"""Write what a person reads of a run in MLflow beside its metrics: a description, and a sample of answers."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.analysis.words import describe_test
from cotdistill.common.errors import UserError
from cotdistill.common.text_tables import markdown_table
from cotdistill.tables.measures import find_range
from cotdistill.tracking.finished import FINAL, FinishedRun, get_cell, select_final

if TYPE_CHECKING:
    from cotdistill.analysis.intervals import Interval

SAMPLE = "predictions_sample.json"
SAMPLE_ROWS = 20
LOGGED = {"mlflow.loggedArtifacts": json.dumps([{"path": SAMPLE, "type": "table"}])}
"""the tag by which MLflow knows that an artifact is a table"""
MAIN = ("ece_width", "brier", "nll", "bleu", "rougeL", "faithful_prediction", "faithful_gold", "excess")
"""last parts of the names of the measures that descriptions show and that cells have means of"""
MAIN_ACCURACIES = ("options/sum/accuracy", "options/mean/accuracy")
"""further such measures: other accuracies are that of the answers, or one of these"""
ROLES = {
    "baseline": "the baseline",
    "proposed": "the proposed method",
    "other": "neither baseline nor proposed",
}


def select_main_measures(item: FinishedRun) -> dict[str, float]:
    """Return the measures of the run that its cell has means of, by name."""
    return {
        name: value
        for name, value in item.measures.items()
        if name.rsplit("/", 1)[-1] in MAIN or name in MAIN_ACCURACIES
    }


def describe_run(item: FinishedRun, parent_link: str) -> str:
    """Return the description of one run, in Markdown. `parent_link`: the address of its cell in the UI."""
    row, final = item.row, select_final(item)
    of = describe_test(int(row["n_test"]), int(row["n_groups"]))
    shown = {"test accuracy": f"{row['accuracy']:.4f} ({row['correct']:.0f} of {of})"}
    shown |= {
        text: f"{final[name]:.4f}"
        for text, name in (
            ("validation accuracy", "selected/valid_accuracy"),
            ("test accuracy, last step", "published/test_accuracy"),
        )
        if name in final
    }
    shown |= {name: f"{value:.4g}" for name, value in select_main_measures(item).items()}
    return "\n".join(
        [
            f"{_name_cell(item)}, seed {item.run.seed}: {ROLES[item.role]}. "
            f"Checkpoint of step {row['step']:.0f}.",
            "",
            markdown_table(("measure", "value"), shown.items(), aligned=False),
            f"First answers on test: artifact `{SAMPLE}`; all of them: `predictions.jsonl`. "
            f"Figures and means over seeds: [{get_cell(item.run.id)}]({parent_link}).",
            "",
            f"Folder: `{item.run.folder.absolute()}`",
        ]
    )


def compute_intervals(items: list[FinishedRun]) -> dict[str, Interval]:
    """Return means over a cell's seeds by metric name: of accuracies, of time, and of the main measures."""
    # SciPy takes a second to import: not where nothing changed
    from cotdistill.analysis.intervals import measure_interval

    values: dict[str, list[float]] = {}
    for item in items:
        for column in ("accuracy", "accuracy_published", "valid_accuracy", "wall_s"):
            value = float(item.row[column])
            values.setdefault(FINAL[column], []).extend([] if math.isnan(value) else [value])
        for name, value in select_main_measures(item).items():
            values.setdefault(name, []).append(value)
    return {name: measure_interval(found, *_find_range(name)) for name, found in values.items()}


def _find_range(name: str) -> tuple[float, float]:
    """Return the least and the most that a metric of a cell can be: an accuracy, a time or a measure."""
    if name == FINAL["wall_s"]:
        return 0, math.inf
    return (0, 1) if name in FINAL.values() else find_range(name)


def describe_cell(items: list[FinishedRun], figures: list[str]) -> str:
    """Return the description of a cell's run, in Markdown: means over its seeds."""
    from cotdistill.analysis.intervals import CONFIDENCE, LEAST_SEEDS

    folder = items[0].run.folder.parent.absolute()
    rows = [
        (name, f"{found.mean:.4g}", _format_interval(found), _format_number(found.sd), str(found.n))
        for name, found in compute_intervals(items).items()
        if found.n
    ]
    seeds = ", ".join(str(item.run.seed) for item in items)
    head = ("measure", "mean", f"{CONFIDENCE:.0%} over seeds", "sd", "seeds")
    names = ", ".join(f"`figures/{name}`" for name in figures)
    return "\n".join(
        [
            f"{_name_cell(items[0])}, seeds {seeds}: {ROLES[items[0].role]}.",
            "",
            markdown_table(head, rows, aligned=False),
            "Intervals are Student's t over seeds: how far the mean would move with other seeds. There is "
            f"none of fewer than {LEAST_SEEDS} seeds or of seeds that are all equal.",
            "",
            f"Figures of the experiment: artifacts {names}." if names else "No figures were drawn yet.",
            "",
            f"Folder: `{folder}`",
        ]
    )


def read_sample(file: Path) -> dict[str, Any]:
    """Return the first answers of a predictions file, in the form that MLflow shows as a table.

    Raises UserError when they are no JSON objects.
    """
    with open(file, encoding="utf-8") as handle:
        lines = list(itertools.islice(handle, SAMPLE_ROWS))
    try:
        rows = [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: its first {len(lines)} lines: expected a JSON object a line") from error
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {"columns": columns, "data": [[_to_cell(row.get(key)) for key in columns] for row in rows]}


def _name_cell(item: FinishedRun) -> str:
    run = item.run
    return (
        f"**{run.method.name}** on **{run.dataset.name}**, student {run.student.name}, {run.labels} labels, "
        f"fraction {run.fraction:g}"
    )


def _format_interval(found: Interval) -> str:
    from cotdistill.analysis.intervals import explain_absence

    if math.isnan(found.low):
        return explain_absence(found.n, found.sd)
    return f"{found.low:.4g} to {found.high:.4g}"


def _format_number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _to_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value

"""Compare methods: a pure function of the table of results to one row per cell of the grid."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from cotdistill.config.models import Experiment
from cotdistill.errors import UserError
from cotdistill.files import write_text
from cotdistill.results.collect import read_results, tables_of
from cotdistill.results.reported import Reported, reported
from cotdistill.results.statistics import paired_interval, t_interval

CELL = ["dataset", "student", "method", "labels", "fraction"]
# a block holds the cells that are compared with one another: everything but the method is equal
BLOCK = ["dataset", "student", "labels", "fraction"]


def compare(results: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per dataset x student x method x labels x fraction, in the order of the grid.

    results: the table that `collect` writes. baseline: name of the method that the others are
    compared with, seed by seed, within their block.

    Columns: CELL, then adapter, pretrained, objective; `baseline`; `n_seeds` finished and
    `n_missing` runs; `mean`, `sd`, `low`, `high` of the test accuracy of the checkpoint chosen on
    validation (95 % t interval over seeds) and `n_test`; `mean_published`, of the last step on
    test; `difference`, `difference_low`, `difference_high` from the baseline over `n_pairs` common
    seeds; `teacher_accuracy` on test; `reported`, `reported_source`, `reported_verified` where a
    reported number is of the same checkpoint, dataset, method, labels and fraction. All accuracies
    are fractions in [0, 1]; what is not known is NaN, None or NA.

    Raises UserError when the table is empty or the baseline is not in it.
    """
    if results.empty:
        raise UserError("the table of results has no rows; nothing to compare")
    if baseline not in set(results["method"]):
        names = ", ".join(dict.fromkeys(results["method"]))
        raise UserError(f"'baseline': method '{baseline}' is not in the grid (methods: {names})")
    rows = []
    for _, block in results.groupby(BLOCK, sort=False):
        reference = by_seed(block[block["method"] == baseline])
        for _, cell in block.groupby("method", sort=False):
            rows.append(_row(cell, baseline, reference))
    frame = pd.DataFrame(rows)
    return frame.astype({"n_test": "Int64", "reported_verified": "boolean"})


def by_seed(cell: pd.DataFrame, column: str = "accuracy") -> dict[int, float]:
    """`column` of the finished runs of one cell, by seed."""
    done = cell[cell["status"] == "done"]
    return {int(seed): float(value) for seed, value in zip(done["seed"], done[column], strict=True)}


def _row(cell: pd.DataFrame, baseline: str, reference: dict[int, float]) -> dict[str, Any]:
    first = cell.iloc[0]
    done = cell[cell["status"] == "done"]
    values = by_seed(cell)
    strict = t_interval(values.values())
    published = t_interval(done["accuracy_published"].dropna())
    own = first["method"] == baseline
    difference = paired_interval({} if own else values, reference)
    teacher = done["teacher_accuracy_test"].dropna()
    match = _reported(first)
    return {
        **{key: first[key] for key in CELL},
        "adapter": first["adapter"],
        "pretrained": _text(first["pretrained"]),
        "objective": first["objective"],
        "baseline": baseline,
        "n_seeds": strict.n,
        "n_missing": len(cell) - len(done),
        "mean": strict.mean,
        "sd": strict.sd,
        "low": strict.low,
        "high": strict.high,
        "n_test": done["n_test"].iloc[0] if len(done) else pd.NA,
        "mean_published": published.mean,
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "n_pairs": difference.n,
        "teacher_accuracy": float(teacher.iloc[0]) if len(teacher) else math.nan,
        "reported": match.low / 100 if match else math.nan,
        "reported_source": match.source if match else None,
        "reported_verified": match.verified if match else pd.NA,
    }


def _reported(run: Any) -> Reported | None:
    """The number of a paper that stands beside this cell; independent runs have a table of their own."""
    settings = json.loads(run["method_settings"])
    where = (_text(run["pretrained"]), run["adapter"], settings, run["labels"], run["fraction"])
    return next((r for r in reported() if not r.independent and r.fits(*where)), None)


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def write(experiment: Experiment) -> list[Path]:
    """Write `tables/comparison.{md,csv,tex}` from `results.parquet`; returns the three paths.

    The CSV holds `compare` at full precision in fractions; the others show percent with one decimal.
    """
    from cotdistill.results.render import latex, markdown

    results = read_results(experiment)
    comparison = compare(results, experiment.baseline)
    folder = tables_of(experiment).results.parent / "tables"
    texts = {
        "comparison.md": markdown(comparison, results),
        "comparison.csv": comparison.to_csv(index=False, lineterminator="\n"),
        "comparison.tex": latex(comparison, results),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def summary(table: pd.DataFrame) -> str:
    """The comparison as plain text for a terminal. table: what `compare` returns."""
    from cotdistill.results.render import plain

    return plain(table)

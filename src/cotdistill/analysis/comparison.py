"""Compare methods: a pure function of the table of results to one row per cell of the grid."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from cotdistill.analysis.intervals import t_interval
from cotdistill.analysis.reported import Reported, reported
from cotdistill.common.errors import UserError
from cotdistill.common.files import write_text
from cotdistill.config.models import Experiment
from cotdistill.tables.store import Tables, files_of

CELL = ["dataset", "student", "method", "labels", "fraction"]
# a block holds the cells that are compared with one another: everything but the method is equal
BLOCK = ["dataset", "student", "labels", "fraction"]


def compare(results: pd.DataFrame, evidence: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per dataset x student x method x labels x fraction, in the order of the grid.

    results: the table that `collect` writes. evidence: what `results.evidence.evidence` makes of it and
    of the examples. baseline: name of the method that the others are compared with, seed by seed, within
    their block.

    Columns: CELL, then adapter, pretrained, objective; `baseline`; `n_seeds` finished and
    `n_missing` runs; `mean`, `sd`, `low`, `high` of the test accuracy of the checkpoint chosen on
    validation (95 % t interval over seeds) and `n_test`; `mean_published`, of the last step on
    test; `difference`, `difference_low`, `difference_high` from the baseline over `n_pairs` common
    seeds, with the corrected `p` and the `decision`; `teacher_accuracy` on test; `reported`,
    `reported_source`, `reported_verified` where a reported number is of the same checkpoint, dataset,
    method, labels and fraction. All accuracies are fractions in [0, 1]; what is not known is NaN, None or NA.

    Raises UserError when the table is empty.
    """
    if results.empty:
        raise UserError("the table of results has no rows; nothing to compare")
    found = {tuple(row[axis] for axis in CELL): row for row in evidence.to_dict("records")}
    rows = []
    for _, block in results.groupby(BLOCK, sort=False):
        for _, cell in block.groupby("method", sort=False):
            rows.append(_row(cell, baseline, found.get(tuple(cell[CELL].iloc[0]))))
    frame = pd.DataFrame(rows)
    return frame.astype({"n_test": "Int64", "reported_verified": "boolean"})


def by_seed(cell: pd.DataFrame, column: str = "accuracy") -> dict[int, float]:
    """`column` of the finished runs of one cell, by seed."""
    done = cell[cell["status"] == "done"]
    return {int(seed): float(value) for seed, value in zip(done["seed"], done[column], strict=True)}


def _row(cell: pd.DataFrame, baseline: str, found: dict[Hashable, Any] | None) -> dict[str, Any]:
    first = cell.iloc[0]
    done = cell[cell["status"] == "done"]
    values = by_seed(cell)
    strict = t_interval(values.values())
    published = t_interval(done["accuracy_published"].dropna())
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
        "difference": found["difference"] if found else math.nan,
        "difference_low": found["low"] if found else math.nan,
        "difference_high": found["high"] if found else math.nan,
        "n_pairs": found["n_seeds"] if found else 0,
        "p": found["p_holm"] if found else math.nan,
        "decision": found["decision"] if found else None,
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
    """Write the comparison, the evidence, the verdict and the samples to `tables/`; returns the paths.

    The CSV files hold `compare` and `evidence` at full precision in fractions; the others show percent
    with one decimal.
    """
    from cotdistill.analysis import verdict
    from cotdistill.report import samples
    from cotdistill.report.latex import latex
    from cotdistill.report.render import markdown
    from cotdistill.report.webpage import comparison_page

    tables = Tables(experiment)
    results = tables.results
    comparison = compare(results, tables.evidence, experiment.baseline)
    said = verdict.verdict(tables.evidence, tables.overall, experiment.experiment, experiment.baseline)
    folder = files_of(experiment).results.parent / "tables"
    texts = {
        "verdict.md": verdict.markdown(said),
        "verdict.txt": verdict.text(said),
        "evidence.csv": tables.evidence.to_csv(index=False, lineterminator="\n"),
        "comparison.md": markdown(comparison, results, tables.measures, verdict.markdown(said)),
        "comparison.csv": comparison.to_csv(index=False, lineterminator="\n"),
        "comparison.tex": latex(comparison, results, tables.measures),
        "comparison.html": comparison_page(comparison, results, tables.measures),
        "samples.md": samples.markdown(tables.samples, experiment.experiment),
        "samples.html": samples.page(tables.samples, experiment.experiment),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def summary(experiment: Experiment) -> str:
    """The comparison as plain text for a terminal."""
    from cotdistill.report.render import plain

    tables = Tables(experiment)
    return plain(compare(tables.results, tables.evidence, experiment.baseline))

"""Compare methods: from the table of results to one row for each cell of the grid."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from cotdistill.analysis.evidence import Evidence, read_evidence
from cotdistill.analysis.intervals import measure_interval, t_interval
from cotdistill.analysis.reported import Reported, read_reported
from cotdistill.common.errors import UserError
from cotdistill.tables.columns import BLOCK, CELL


def compare(results: pd.DataFrame, evidence: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return one row per dataset x student x method x labels x fraction, in the order of the grid.

    results: the table that `collect` writes. evidence: the table that `analysis.evidence.compute_evidence`
    makes of it and of the examples. baseline: name of the method that the others are compared with, seed by
    seed, within their block.

    Columns: CELL, then adapter, split, pretrained, objective; `baseline`; `n_seeds` finished and
    `n_missing` runs; `mean`, `sd`, `low`, `high` of the test accuracy of the checkpoint chosen on
    validation (95 % t interval over seeds, NaN where there is none to show), `n_test` examples and their
    `n_groups`;
    `mean_published`, of the last step on test; `difference`, `difference_low`, `difference_high` from the
    baseline over `n_pairs` common seeds, with the corrected `p` and the `decision`; `teacher_accuracy` on
    test; `reported`, `reported_source`, `reported_verified` where a reported number is of the same
    checkpoint, dataset, method, labels and fraction. All accuracies are fractions in [0, 1]; what is not
    known is NaN, None or NA.

    Raises UserError when the table is empty.
    """
    if results.empty:
        raise UserError("the table of results has no rows; nothing to compare")
    found = {row.cell: row for row in read_evidence(evidence)}
    rows = []
    for _, block in results.groupby(BLOCK, sort=False):
        for _, cell in block.groupby("method", sort=False):
            rows.append(_compare_cell(cell, baseline, found.get(tuple(cell[CELL].iloc[0]))))
    frame = pd.DataFrame(rows)
    return frame.astype({"n_test": "Int64", "n_groups": "Int64", "reported_verified": "boolean"})


def select_by_seed(cell: pd.DataFrame, column: str = "accuracy") -> dict[int, float]:
    """Return `column` of the finished runs of one cell, by seed."""
    done = cell[cell["status"] == "done"]
    return {int(seed): float(value) for seed, value in zip(done["seed"], done[column], strict=True)}


def _compare_cell(cell: pd.DataFrame, baseline: str, found: Evidence | None) -> dict[str, Any]:
    first = cell.iloc[0]
    done = cell[cell["status"] == "done"]
    values = select_by_seed(cell)
    strict = measure_interval(values.values(), 0, 1)
    published = t_interval(done["accuracy_published"].dropna())
    teacher = done["teacher_accuracy_test"].dropna()
    match = _find_reported(first)
    return {
        **{key: first[key] for key in CELL},
        "adapter": first["adapter"],
        "split": first["split"],
        "pretrained": _to_text(first["pretrained"]),
        "objective": first["objective"],
        "baseline": baseline,
        "n_seeds": strict.n,
        "n_missing": len(cell) - len(done),
        "mean": strict.mean,
        "sd": strict.sd,
        "low": strict.low,
        "high": strict.high,
        "n_test": done["n_test"].iloc[0] if len(done) else pd.NA,
        "n_groups": done["n_groups"].iloc[0] if len(done) else pd.NA,
        "mean_published": published.mean,
        "difference": found.difference if found else math.nan,
        "difference_low": found.low if found else math.nan,
        "difference_high": found.high if found else math.nan,
        "n_pairs": found.n_seeds if found else 0,
        "p": found.p_holm if found else math.nan,
        "decision": found.decision if found else None,
        "teacher_accuracy": float(teacher.iloc[0]) if len(teacher) else math.nan,
        "reported": match.low / 100 if match else math.nan,
        "reported_source": match.source if match else None,
        "reported_verified": match.verified if match else pd.NA,
    }


def _find_reported(run: Any) -> Reported | None:
    """Return the number that a paper reports of this cell; independent runs have a table of their own.

    None where the dataset was cut anew: papers report of its published test split.
    """
    if run["split"] != "published":
        return None
    settings = json.loads(run["method_settings"])
    where = (_to_text(run["pretrained"]), run["adapter"], settings, run["labels"], run["fraction"])
    return next((r for r in read_reported() if not r.independent and r.fits(*where)), None)


def _to_text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)

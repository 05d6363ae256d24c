"""Sum up over datasets how each method differs from the baseline. No decision rests on it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from cotdistill.analysis import across, crossed
from cotdistill.analysis.intervals import Interval, restrict
from cotdistill.analysis.pairs import Answers, Pairs, group_answers, make_rng, pair_runs, split_blocks
from cotdistill.tables.columns import SETTING


@dataclass(frozen=True)
class Overall:
    """How one method differs from the baseline over several datasets; a row of the table of overall results.

    A dataset counts when it has at least two pairs of runs; every dataset weighs the same.
    """

    student: str
    labels: str
    fraction: float
    method: str
    baseline: str
    n_datasets: int
    datasets: list[str]
    left_out: list[str]
    n_runs: int
    difference: float
    """mean over datasets of the paired differences, with interval and p as in `crossed.average`"""
    low: float
    high: float
    p: float
    """not corrected"""
    differences: list[float]
    """of each of `datasets`, in their order: a mean can hide that one of them goes the other way"""
    probability_of_improvement: float
    """over the baseline, as in `across`, with a 95% interval over the same runs"""
    improvement_low: float
    improvement_high: float

    @property
    def worst(self) -> tuple[str, float]:
        """The dataset on which the method fares worst, and its difference there."""
        return min(zip(self.datasets, self.differences, strict=True), key=lambda pair: pair[1])


OVERALL_COLUMNS = [field.name for field in fields(Overall)]


def compute_overall(examples: pd.DataFrame, runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return a row (see Overall) per setting of the grid and method but the baseline, over its datasets.

    A dataset counts for a method when it has at least two pairs of runs with the baseline; `left_out` names
    the others, and those that hold the rows of another one, cut anew. The datasets themselves are not
    resampled, so it speaks of these datasets alone. No row where fewer than two datasets can be used.
    runs: as for `compute_evidence`, with `adapter` and `split`. Raises UserError as that does.
    """
    answers = group_answers(examples)
    blocks = split_blocks(runs, baseline)
    rows = []
    for setting in sorted({tuple(key[axis] for axis in SETTING) for key, _ in blocks}):
        mine = [(key, block) for key, block in blocks if tuple(key[axis] for axis in SETTING) == setting]
        for method in sorted({name for _, block in mine for name in block["method"]} - {baseline}):
            key = dict(zip(SETTING, setting, strict=True))
            row = _sum_up(key, mine, method, baseline, answers)
            rows += [asdict(row)] if row else []
    return pd.DataFrame(rows, columns=OVERALL_COLUMNS)


def _sum_up(
    key: dict[str, Any],
    blocks: list[tuple[dict[str, Any], pd.DataFrame]],
    method: str,
    baseline: str,
    answers: Answers,
) -> Overall | None:
    """Return the row of one method in one setting; None where fewer than two datasets can be used."""
    used: dict[str, Pairs] = {}
    left_out = []
    twice = _list_twice(blocks)
    for where, block in blocks:
        pairs = pair_runs(block, method, baseline, answers)
        if len(pairs.seeds) > 1 and pairs.n_groups > 1 and where["dataset"] not in twice:
            used[where["dataset"]] = pairs
        else:
            left_out.append(where["dataset"])
    if len(used) < 2:
        return None
    ours = [pairs.proposed.mean(axis=1) for pairs in used.values()]
    theirs = [pairs.baseline.mean(axis=1) for pairs in used.values()]
    mean = crossed.average([crossed.compute_components(*pairs.units) for pairs in used.values()])
    rng = make_rng("improvement", key, method, baseline)
    chance_low, chance_high = across.improvement_interval(ours, theirs, rng)
    shown = restrict(Interval(len(used), mean.mean, math.nan, mean.low, mean.high), -1, 1, least_seeds=1)
    return Overall(
        **key,
        method=method,
        baseline=baseline,
        n_datasets=len(used),
        datasets=list(used),
        left_out=left_out,
        n_runs=sum(map(len, ours)),
        difference=mean.mean,
        low=shown.low,
        high=shown.high,
        p=mean.p,
        differences=[float(pairs.differences.mean()) for pairs in used.values()],
        probability_of_improvement=across.probability_of_improvement(ours, theirs),
        improvement_low=chance_low,
        improvement_high=chance_high,
    )


def _list_twice(blocks: list[tuple[dict[str, Any], pd.DataFrame]]) -> list[str]:
    """Return the datasets that are cut anew from one that stands beside them, whose rows they share."""
    published = {block["adapter"].iloc[0] for _, block in blocks if block["split"].iloc[0] == "published"}
    return [
        key["dataset"]
        for key, block in blocks
        if block["split"].iloc[0] != "published" and block["adapter"].iloc[0] in published
    ]


def read_overall(frame: pd.DataFrame) -> list[Overall]:
    """Return the rows of the table of overall results."""
    return [Overall(**{str(key): value for key, value in row.items()}) for row in frame.to_dict("records")]

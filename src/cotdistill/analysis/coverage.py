"""Say where intervals do not cover what they promise: what simulation has shown of a design.

The numbers are those of docs/statistics.md, from `benchmarks/simulate_statistics.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotdistill.analysis.evidence import LEAST_GROUPS, Evidence
from cotdistill.analysis.modes import SURE
from cotdistill.analysis.words import join_names

SURE_DATASETS = 5
"""seeds from which a mean over datasets has at most 6% false positives, however unequal the datasets are"""
IMPROVEMENT = (
    "The interval of the probability that a run beats another keeps the test examples fixed: over other test "
    "examples too, it leaves out the true one in up to 1 of 4 experiments."
)


def list_limits(rows: Sequence[Evidence], together: bool) -> list[str]:
    """Return a sentence for each way in which the intervals of these results are not sure; none for none.

    together: whether there is a mean over datasets.
    """
    found = [_tell_groups(rows), _tell_kinds(rows)]
    found += [_tell_datasets(rows), IMPROVEMENT] if together else []
    return [text for text in found if text]


def _tell_groups(rows: Sequence[Evidence]) -> str:
    few = [row for row in rows if row.effective_groups < LEAST_GROUPS]
    if not few:
        return ""
    found = [f"{row.effective_groups:.0f} on {row.dataset}" for row in few]
    return (
        f"Test examples that tell as little as fewer than {LEAST_GROUPS} groups of one size "
        f"({join_names(list(dict.fromkeys(found)))}): what the design can find is not told. Where one group "
        "holds many of the examples, intervals are wider than 95% asks for, and real differences are missed."
    )


def _tell_kinds(rows: Sequence[Evidence]) -> str:
    few = sorted({row.n_seeds for row in rows if 1 < row.n_seeds < SURE})
    if not few:
        return ""
    return (
        "The intervals take a method's seeds for of one kind. Where a part of them ends up far below the "
        f"rest, {join_names([str(n) for n in few], 'or')} seeds may show one kind alone, and such intervals "
        "cover the true difference in as few as 3 of 4 experiments."
    )


def _tell_datasets(rows: Sequence[Evidence]) -> str:
    if not any(1 < row.n_seeds < SURE_DATASETS for row in rows):
        return ""
    return (
        f"With fewer than {SURE_DATASETS} seeds the interval of the mean over datasets leaves out the true "
        "mean in 7% of experiments, not 5%, where seeds differ much more on one of the datasets."
    )

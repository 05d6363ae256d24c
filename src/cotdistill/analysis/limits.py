"""Say what a verdict leaves open: what was not measured, and where intervals do not cover what they promise.

The numbers are those of docs/statistics.md, from `benchmarks/simulate_statistics.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotdistill.analysis.evidence import LEAST_GROUPS, Evidence
from cotdistill.analysis.intervals import LEAST_SEEDS
from cotdistill.analysis.modes import SURE
from cotdistill.analysis.words import format_count, join_names
from cotdistill.common.errors import list_some

LEAST_EXAMPLES = 100
"""test examples from which, and from LEAST_SEEDS, simulations hold the intervals' coverage"""
NO_OVERALL = "No overall result: it takes two datasets with at least two seeds of both methods."
SURE_DATASETS = 5
"""seeds from which a mean over datasets has at most 6% false positives, however unequal the datasets are"""
IMPROVEMENT = (
    "The interval of the probability that a run beats another keeps the test examples fixed: over other test "
    "examples too, it leaves out the true one in up to 1 of 4 experiments."
)


def list_limits(rows: Sequence[Evidence], asked: Sequence[Evidence], together: bool) -> list[str]:
    """Return a sentence for each thing to keep in mind of a comparison; the last one always holds.

    asked: those of `rows` that the headline speaks of. together: whether there is a mean over datasets.
    """
    found = [
        _tell_runs(rows, "missing", "missing"),
        _tell_runs(rows, "unpaired", "not comparable"),
        _tell_few_seeds(asked),
        "" if together else NO_OVERALL,
        _tell_sizes(asked),
        _tell_permutation(asked),
        _tell_groups(asked),
        _tell_kinds(asked),
        *([_tell_datasets(asked), IMPROVEMENT] if together else []),
        "It holds for these datasets, students and settings; seeds and test examples (or groups of "
        "them) count as random.",
    ]
    return [text for text in found if text]


def _tell_runs(rows: Sequence[Evidence], column: str, what: str) -> str:
    names = list(dict.fromkeys(name for row in rows for name in getattr(row, column)))
    return f"{format_count(len(names), 'run')} {what}: {list_some(names, 20)}." if names else ""


def _tell_few_seeds(rows: Sequence[Evidence]) -> str:
    if not any(0 < row.n_seeds < LEAST_SEEDS for row in rows):
        return ""
    return (
        f"Where fewer than {LEAST_SEEDS} seeds are finished, the variation between seeds is unknown, or "
        "nearly so, and nothing is decided."
    )


def _tell_sizes(rows: Sequence[Evidence]) -> str:
    several = [row for row in rows if row.n_seeds > 1]
    few = [row for row in several if row.n_seeds < LEAST_SEEDS or row.n_examples < LEAST_EXAMPLES]
    if not few:
        return ""
    sizes = [f"{row.n_seeds} seeds and {format_count(row.n_examples, 'test example')}" for row in few]
    return (
        f"The intervals' coverage was checked by simulation for at least {LEAST_SEEDS} seeds and "
        f"{LEAST_EXAMPLES} test examples; here: {join_names(list(dict.fromkeys(sizes)))}."
    )


def _tell_permutation(rows: Sequence[Evidence]) -> str:
    floors = sorted({(row.n_seeds, row.p_permutation_least) for row in rows if 1 < row.n_seeds < 6})
    if not floors:
        return ""
    least = join_names([f"below {p:.3g} with {n} seeds" for n, p in floors], "or")
    return f"The permutation test over seeds is no part of the rule: its p cannot be {least}."


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
    few = sorted({row.n_seeds for row in rows if LEAST_SEEDS <= row.n_seeds < SURE})
    if not few:
        return ""
    return (
        "The intervals take all seeds of a method to be of one kind. Where a part of them ends up far below "
        f"the rest, {join_names([str(n) for n in few], 'or')} seeds may show one kind alone, and such "
        "intervals cover the true difference in as few as 3 of 4 experiments."
    )


def _tell_datasets(rows: Sequence[Evidence]) -> str:
    if not any(LEAST_SEEDS <= row.n_seeds < SURE_DATASETS for row in rows):
        return ""
    return (
        f"With {LEAST_SEEDS} or {SURE_DATASETS - 1} seeds the interval of the mean over datasets leaves out "
        "the true mean in 7% of experiments, not 5%, where seeds differ much more on one of the datasets."
    )

"""What the figures of mutual information share: which estimates there are, and how to read them."""

from __future__ import annotations

from collections.abc import Iterable

from cotdistill.config.models import Experiment
from cotdistill.evaluation.information.estimators import ESTIMATORS

SPACES = {"decoder": "pooled decoder states", "output": "pooled output distributions"}
"""what is measured between the label task and the rationale task, in words"""


def list_estimates(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the sorted (representation, estimator) pairs of names such as `mi/<space>/<estimator>`."""
    found = {tuple(name.split("/")[1:3]) for name in names if name.startswith("mi/")}
    return sorted((pair[0], pair[1]) for pair in found if len(pair) == 2)


def title_column(space: str, estimator: str) -> str:
    """Return a column's title: what is measured, by what, and the direction of its bound."""
    bound = f" ({ESTIMATORS[estimator].bound})" if estimator in ESTIMATORS else ""
    return f"{SPACES.get(space, space)}\n{estimator}{bound}"


def explain_estimators(names: Iterable[str]) -> str:
    """Return a sentence on each of the estimators: its kind, bound, ceiling and source."""
    known = [ESTIMATORS[name] for name in dict.fromkeys(names) if name in ESTIMATORS]
    return " ".join(
        f"{each.name}: {each.kind} ({each.source}); {each.bound}; ceiling: {each.ceiling}." for each in known
    )


def explain_absence(experiment: Experiment) -> str:
    """Return the sentence in place of the figure."""
    return f"No run of {experiment.experiment} has an estimate of mutual information: nothing to show."

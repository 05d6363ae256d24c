"""What the figures of predictability share: what was measured, and how to read the numbers."""

from __future__ import annotations

from collections.abc import Iterable

from cotdistill.config.bounds import LEAST_MEASURED
from cotdistill.config.models import Experiment
from cotdistill.evaluation.predictability import CANDIDATES, CEILING, FREE_RUNNING, REPRESENTATIONS

PREFIX = "predictability/"
"""of the measures of a finished run, on test"""
OVER_TRAINING = "valid/predictability/"
"""of the numbers in a history"""
SPACES = {
    **{name: f"{words}, teacher-forced" for name, words in REPRESENTATIONS.items()},
    **{f"{FREE_RUNNING}/{name}": f"{words}, free-running" for name, words in REPRESENTATIONS.items()},
}
"""what may have been measured, in words"""


def list_spaces(names: Iterable[str], prefix: str = PREFIX) -> list[str]:
    """Return which of SPACES there is an excess of, among names of measures, or of a history."""
    found = set(names)
    return [space for space in SPACES if f"{prefix}{space}/excess" in found]


def explain_numbers(spaces: Iterable[str]) -> str:
    """Return sentences on what is predicted from what, the ceiling, the controls and what the excess is."""
    shown = list(spaces)
    forced = "Teacher-forced: the passes are given the teacher's rationale and the gold label. "
    free = (
        "Free-running: the passes are given the rationale and the answer that the student itself wrote, and "
        "one label means one answer. "
    )
    return (
        f"{forced if any(space in REPRESENTATIONS for space in shown) else ''}"
        f"{free if any(space.startswith(FREE_RUNNING) for space in shown) else ''}"
        f"Predictability is InfoNCE among {CANDIDATES} examples, by critics that were fitted on other "
        f"examples, as a share of its ceiling, log({CANDIDATES}) = {CEILING:.2f} nats: a lower bound on the "
        "mutual information of the two tasks' states, and not that information. Both states hold the "
        "question and the answer, so that much of it needs no training: the untrained student is the same "
        "one before its first step, and the same-label control pairs each rationale with another question "
        "of the same label. The excess is the share less the larger of these two (of the first alone where "
        "too few questions share a label). Shares depend on the number of examples, which is the same in all "
        "runs."
    )


def explain_absence(experiment: Experiment) -> str:
    """Return the sentence in place of the figure."""
    least = experiment.evaluation.predictability or LEAST_MEASURED
    return (
        f"No run of {experiment.experiment} has a measured predictability: that takes a method with a label "
        f"and a rationale task, and {least} test examples with a rationale (evaluation.predictability, "
        "where 0 means never); the reasons in metrics.json say more."
    )

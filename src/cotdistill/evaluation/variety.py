"""Tell how varied a run's answers are, and whether it collapsed to one. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cotdistill.runs.documents import Answer

COLLAPSED = 0.95
"""share of test that gets one and the same answer, from which a run counts as collapsed"""


def measure_variety(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return how varied answers are: `distinct` texts, and the commonest one's share of the answers.

    `commonest_gold_share` is that of the commonest gold label. The shares are None without examples.
    """
    texts, golds = (
        Counter(getattr(answer, name) for answer in answers) for name in ("prediction", "gold")
    )
    n = len(answers)
    return {
        "distinct": len(texts),
        "commonest_share": max(texts.values()) / n if n else None,
        "commonest_gold_share": max(golds.values()) / n if n else None,
    }


def is_collapsed(variety: Mapping[str, Any]) -> bool | None:
    """Return whether a run gives one answer to nearly all of test although gold does not; None if unknown.

    variety: of `measure_variety`. Where nearly all of gold is one label too, such a run is not collapsed.
    """
    share, gold = variety.get("commonest_share"), variety.get("commonest_gold_share")
    if share is None or gold is None:
        return None
    return bool(gold < COLLAPSED <= share)

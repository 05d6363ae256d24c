"""An estimate of mutual information, as both estimators give it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """An estimate in nats with its 95% interval (normal, over samples).

    n: samples that it is the mean over; ceiling: what it cannot exceed, None where nothing holds it.
    """

    value: float
    low: float
    high: float
    n: int
    ceiling: float | None = None

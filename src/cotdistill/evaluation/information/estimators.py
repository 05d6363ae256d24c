"""What estimates I(Z;V), in nats, from paired samples: name, direction, ceiling and source of each.

Light to import: figures and the report read the names here, without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LEAST = 40
"""fewest samples that are estimated from"""


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


@dataclass(frozen=True)
class Estimator:
    """One way to estimate mutual information, and how to read what it says."""

    name: str
    kind: str
    bound: str
    """`lower bound`, or `not a bound`"""
    ceiling: str
    source: str

    def estimate(self, z: torch.Tensor, v: torch.Tensor, seed: int) -> Estimate:
        """I(Z;V) of paired rows z: (n, d) and v: (n, e). Raises ValueError below LEAST rows, or unpaired.

        seed: of the split, for an estimator that fits on one part and reads on another. Computed in
        float64 on the CPU; the global random state is not touched.
        """
        # not the package itself, whose code is that of a loss: an edit there must not redo what measures
        import cotdistill.evaluation.information.gaussian as gaussian
        import cotdistill.evaluation.information.infonce as infonce

        if len(z) != len(v) or len(z) < LEAST:
            raise ValueError(f"{len(z)} and {len(v)} samples: expected pairs, at least {LEAST}")
        z, v = z.double().cpu(), v.double().cpu()
        return infonce.estimate(z, v, seed) if self.name == "infonce" else gaussian.estimate(z, v)

    def described(self, found: Estimate) -> dict[str, Any]:
        """An estimate as plain values, with what bounds it."""
        values = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
        ceiling = {} if found.ceiling is None else {"ceiling": found.ceiling}
        return {**values, **ceiling, "bound": self.bound}


ESTIMATORS = {
    each.name: each
    for each in (
        Estimator(
            "infonce",
            kind="InfoNCE with a quadratic critic, fitted on one half and read on the other, both ways",
            bound="lower bound",
            ceiling="the logarithm of its batch: half the samples, at most 128 (4.85 nats)",
            source="van den Oord et al. 2018, equations 4 and 5",
        ),
        Estimator(
            "gaussian",
            kind="canonical correlations of the principal components, as if jointly Gaussian",
            bound="not a bound",
            ceiling="none; shrinkage holds it below 3.1 nats a component, n/16 components (32 at most)",
            source="Gelfand and Yaglom 1957; bias: Ahmed and Gokhale 1989",
        ),
    )
}
"""by name; a figure or a table that shows an estimate also says its kind, bound and ceiling"""

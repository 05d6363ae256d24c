"""The estimators of I(Z;V), in nats, from paired samples: name, direction, ceiling and source of each.

Figures and the report read these descriptions; the computations are in modules of their own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimator:
    """One way to estimate mutual information, and how its estimates are to be read."""

    name: str
    kind: str
    bound: str
    """`lower bound`, or `not a bound`"""
    ceiling: str
    source: str


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

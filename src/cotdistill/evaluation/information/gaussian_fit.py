"""Mutual information of samples as if they were jointly Gaussian, from their canonical correlations."""

from __future__ import annotations

import torch

from cotdistill.evaluation.information.components import fit_canonical, fit_principal
from cotdistill.evaluation.information.estimate import Estimate

COMPONENTS = 32
PER_COMPONENT = 16
"""samples for each principal component of a side"""
SHRINKAGE = 1e-3
"""correlations are divided by 1 + this: equal representations do not give infinity"""


def estimate_gaussian(z: torch.Tensor, v: torch.Tensor) -> Estimate:
    """Return -1/2 sum_k log(1 - rho_k^2) over canonical correlations rho of z: (n, d) and v: (n, e), float64.

    Each side is first reduced to its leading principal components, chosen without looking at the other.
    In-sample correlations are too large: their bias, which for Gaussian samples is known exactly and does not
    depend on rho (log-determinants of Wishart matrices; Ahmed and Gokhale 1989), is subtracted, so the
    estimate may fall below 0. It is neither a lower nor an upper bound: samples that are not Gaussian have
    other information, and components left out can only lose some. The interval is that of the mean of the
    fitted information densities, wider than needed where there is little information; one that lies below 0,
    where no information can be, is extended to it.
    """
    n, most = len(z), min(COMPONENTS, len(z) // PER_COMPONENT)
    a, b = fit_principal(z, most)(z), fit_principal(v, most)(v)
    if not (a.shape[1] and b.shape[1]):  # one side is constant, so there is no information
        return Estimate(0.0, 0.0, 0.0, n)
    left, right, rho = fit_canonical(a, b)
    rho = rho.clamp_max(1.0) / (1 + SHRINKAGE)
    information = -torch.log1p(-(rho**2)).sum() / 2
    a, b = a @ left, b @ right
    density = ((rho * a * b - rho**2 * (a**2 + b**2) / 2) / (1 - rho**2)).sum(1)
    value = float(information) - _compute_bias(n, len(left), len(right))
    margin = 1.96 * float(density.std()) / n**0.5
    return Estimate(value, value - margin, max(value + margin, 0.0), n)


def _compute_bias(n: int, k: int, m: int) -> float:
    """Return by how much n Gaussian samples of k and m dimensions overstate their information on average."""
    halves = (n - 1 - torch.arange(k + m, dtype=torch.float64)) / 2
    terms = torch.digamma(halves)
    return float(terms[:k].sum() + terms[:m].sum() - terms.sum()) / 2

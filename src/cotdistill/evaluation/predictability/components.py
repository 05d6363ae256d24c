"""Reduce samples to a few whitened directions, fitted on one set of rows and applied to any."""

from __future__ import annotations

from collections.abc import Callable

import torch

Map = Callable[[torch.Tensor], torch.Tensor]

NOISE = 1e-5
"""directions whose spread is below this part of the largest are rounding"""


def fit_principal(x: torch.Tensor, most: int) -> Map:
    """Return the map from (m, d) to (m, k) that whitens the `most` leading principal components of x: (n, d).

    On x itself the results have mean 0, variance 1 and no correlation. k < `most` where x has fewer
    directions, 0 where all its rows are alike.
    """
    mean = x.mean(0)
    _, spread, directions = torch.linalg.svd(x - mean, full_matrices=False)
    scale = max(float(spread[0]), float(x.abs().max()) * NOISE)
    kept = int((spread > scale * NOISE).sum()) if scale > 0 else 0
    kept = min(kept, most)
    weights = directions[:kept].T / spread[:kept] * (len(x) - 1) ** 0.5
    return lambda rows: (rows - mean) @ weights


def fit_canonical(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rotations of whitened a: (n, k) and b: (n, l) onto pairs of greatest correlation.

    They are (k, p) and (l, p), with the correlations (p,), p = min(k, l) (Hotelling 1936).
    """
    left, correlations, right = torch.linalg.svd(a.T @ b / (len(a) - 1), full_matrices=False)
    return left, right.T, correlations

"""The probability of improvement over several datasets (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000

Scores = Sequence[NDArray[np.float64]]
"""one array a dataset, of shape (runs,) or, resampled, (resamples, runs)"""


def probability_of_improvement(proposed: Sequence[ArrayLike], baseline: Sequence[ArrayLike]) -> float:
    """Return the chance that a run of the proposed method beats one of the baseline, averaged over datasets.

    Within a dataset it is the Mann-Whitney U over the number of pairs of runs; a tie counts one half.
    """
    ours = [np.asarray(values, dtype=np.float64) for values in proposed]
    theirs = [np.asarray(values, dtype=np.float64) for values in baseline]
    return float(_improvement(ours, theirs))


def improvement_interval(
    proposed: Sequence[ArrayLike],
    baseline: Sequence[ArrayLike],
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of `probability_of_improvement`.

    It is of percentiles of a bootstrap that resamples each side's runs within each dataset ("stratified").
    With few seeds such an interval is too narrow, so no decision rests on it.
    """
    drawn = [[_resample(values, rng) for values in scores] for scores in (proposed, baseline)]
    low, high = np.quantile(_improvement(*drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _improvement(proposed: Scores, baseline: Scores) -> NDArray[np.float64]:
    shares = []
    for ours, theirs in zip(proposed, baseline, strict=True):
        signs = np.sign(ours[..., :, None] - theirs[..., None, :])
        shares.append(0.5 + signs.mean(axis=(-2, -1)) / 2)
    return np.mean(shares, axis=0)


def _resample(values: ArrayLike, rng: np.random.Generator) -> NDArray[np.float64]:
    # sorted, so that the same runs in another order give the same resamples
    runs = np.sort(np.asarray(values, dtype=np.float64))
    return runs[rng.integers(len(runs), size=(RESAMPLES, len(runs)))]

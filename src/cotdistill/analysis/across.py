"""Summaries of scores over several datasets (Agarwal et al. 2021, arXiv 2108.13264): one number a run.

Their intervals are percentiles of a bootstrap that resamples runs within each dataset ("stratified"). With
few seeds such an interval is too narrow, so no decision rests on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000

Scores = Sequence[NDArray[np.float64]]
"""one array a dataset, of shape (runs,) or, resampled, (resamples, runs)"""


def interquartile_mean(scores: Sequence[ArrayLike]) -> float:
    """Return the mean of the middle half of all runs of all datasets; a quarter is cut at each end."""
    return float(_average_middle([np.asarray(values, dtype=np.float64) for values in scores]))


def _average_middle(scores: Scores) -> NDArray[np.float64]:
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(np.concatenate(scores, axis=-1), 0.25, axis=-1))


def probability_of_improvement(proposed: Sequence[ArrayLike], baseline: Sequence[ArrayLike]) -> float:
    """Return the chance that a run of the proposed method beats one of the baseline, averaged over datasets.

    Within a dataset it is the Mann-Whitney U over the number of pairs of runs; a tie counts one half.
    """
    ours = [np.asarray(values, dtype=np.float64) for values in proposed]
    theirs = [np.asarray(values, dtype=np.float64) for values in baseline]
    return float(_improvement(ours, theirs))


def _improvement(proposed: Scores, baseline: Scores) -> NDArray[np.float64]:
    shares = []
    for ours, theirs in zip(proposed, baseline, strict=True):
        signs = np.sign(ours[..., :, None] - theirs[..., None, :])
        shares.append(0.5 + signs.mean(axis=(-2, -1)) / 2)
    return np.mean(shares, axis=0)


def interquartile_interval(
    scores: Sequence[ArrayLike], rng: np.random.Generator, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the stratified bootstrap interval of `interquartile_mean`."""
    return _interval(_average_middle, [scores], rng, confidence)


def improvement_interval(
    proposed: Sequence[ArrayLike],
    baseline: Sequence[ArrayLike],
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the same of `probability_of_improvement`; each side is resampled by itself."""
    return _interval(_improvement, [proposed, baseline], rng, confidence)


def _interval(
    statistic: Callable[..., NDArray[np.float64]],
    sides: Sequence[Sequence[ArrayLike]],
    rng: np.random.Generator,
    confidence: float,
) -> tuple[float, float]:
    drawn = [[_resample(values, rng) for values in scores] for scores in sides]
    low, high = np.quantile(statistic(*drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resample(values: ArrayLike, rng: np.random.Generator) -> NDArray[np.float64]:
    # sorted, so that the same runs in another order give the same resamples
    runs = np.sort(np.asarray(values, dtype=np.float64))
    return runs[rng.integers(len(runs), size=(RESAMPLES, len(runs)))]

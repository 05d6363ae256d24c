"""Mean difference of two methods over seeds and test examples, with a bootstrap interval over both.

The data are a matrix, seeds x test examples, of `correct_proposed - correct_baseline`. Every seed answers the
same examples, so seeds and examples are crossed:

    d[s, e] = mu + seed[s] + example[e] + noise[s, e]
    Var(mean) = Var(seed) / n + Var(example) / m + Var(noise) / (n m)

The interval is for `mu`: where it would lie if the experiment were repeated with other seeds and other test
examples of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtri
from scipy.stats import t as student_t

RESAMPLES = 19_999
"""one below a round number: then `(1 + count) / (RESAMPLES + 1) < 0.05` has no rounding in it"""

SEPARATE = 0.6
"""weight of the Behrens-Fisher part in `resample_deviations`"""

CELLS = 4_000_000
"""most counts drawn at once (32 MB)"""


@dataclass(frozen=True)
class Components:
    """Mean squares of the two-way layout without repetition (Cornfield and Tukey 1956), and what follows.

    With one seed, seeds and noise cannot be told from examples: `seed_square` and `noise_square` are 0.
    """

    n_seeds: int
    n_examples: int
    mean: float
    seed_square: float
    example_square: float
    noise_square: float

    @property
    def seeds(self) -> float:
        """Variance between seeds, at least 0; NaN with one seed, which says nothing about it."""
        if self.n_seeds == 1:
            return math.nan
        return max(self.seed_square - self.noise_square, 0.0) / self.n_examples

    @property
    def examples(self) -> float:
        """Variance between examples, at least 0."""
        return max(self.example_square - self.noise_square, 0.0) / self.n_seeds

    @property
    def noise(self) -> float:
        """Variance of what is neither the seed's nor the example's."""
        return self.noise_square


@dataclass(frozen=True)
class Estimate:
    """A mean, its interval, and the p-value that says the same: `p < 1 - confidence` when 0 is outside."""

    mean: float
    low: float
    high: float
    p: float


def gather(differences: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Return seeds x groups, to be resampled as if groups were the examples; all means stay what they were.

    differences: seeds x examples. groups: a name for each example. A group's value is the mean of all plus
    what its examples add to the deviation from it, times the number of groups over that of examples: the mean
    over examples is a ratio of sums over groups, and this is its linear part (Cochran 1977, section 6.4), so
    a group counts as much as it has examples. Groups are in sorted order.
    """
    matrix = np.asarray(differences, dtype=np.float64)
    names, places = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(names) == matrix.shape[1]:
        return matrix[:, np.argsort(places)]
    mean = matrix.mean()
    sums = np.zeros((matrix.shape[0], len(names)))
    np.add.at(sums.T, places, (matrix - mean).T)
    return np.asarray(mean + sums * (len(names) / matrix.shape[1]))


def compute_components(differences: ArrayLike) -> Components:
    """Return the mean squares of `differences` (seeds x examples). Raises ValueError for one example."""
    return _compute_effects(differences)[0]


def _compute_effects(differences: ArrayLike) -> tuple[Components, NDArray[np.float64], NDArray[np.float64]]:
    """Return the components, and the sorted effects of seeds and of examples."""
    matrix = np.asarray(differences, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 1 or matrix.shape[1] < 2 or not np.isfinite(matrix).all():
        raise ValueError(
            f"expected finite differences, seeds x at least 2 examples; found shape {matrix.shape}"
        )
    n, m = matrix.shape
    mean = float(matrix.sum() / (n * m))
    seeds = np.sort(matrix.sum(axis=1) / m - mean)
    examples = np.sort(matrix.sum(axis=0) / n - mean)
    example_sum = n * float(examples @ examples)
    seed_square = noise_square = 0.0
    if n > 1:
        seed_sum = m * float(seeds @ seeds)
        total = float((matrix**2).sum()) - n * m * mean**2
        rest = total - seed_sum - example_sum
        # what is left of rounding is no noise
        noise_square = rest / ((n - 1) * (m - 1)) if rest > 1e-12 * total else 0.0
        seed_square = seed_sum / (n - 1)
    return Components(n, m, mean, seed_square, example_sum / (m - 1), noise_square), seeds, examples


def resample_deviations(
    differences: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Return bootstrap deviations of the mean of `differences` (seeds x examples), `resamples` of them.

    Seeds and examples are resampled independently, as in the crossed ("pigeonhole") bootstrap of Owen (2007,
    Ann. Appl. Stat. 1(2)), with the three corrections that few seeds need:

    - effects are resampled, not cells: a resample of cells counts the noise up to three times. The effects of
      examples are shrunk to the variance that is theirs, so the noise counts once, with the seeds;
    - effects are scaled by sqrt(k / (k - 1)), as k resampled ones vary less than new ones would (Hesterberg
      2015, Am. Stat. 69(4));
    - the parts are divided by the root of a chi-square over its degrees of freedom, as their variances are
      estimates. Two classical ways of doing so are averaged: each part by its own, which for normal effects
      is the Behrens-Fisher distribution (Fisher 1935) and covers too much, and the sum by Satterthwaite's
      (1946), which covers too little. The weight is such that both errors are small for 3 seeds. Where one
      part is all, both are Student's t. Resamples are not studentised by their own spread: that of 3
      resampled seeds is often 0.

    Where all seeds have the very same mean, as counts may, the noise is taken for the seeds' part.

    It assumes that seeds and examples are drawn independently, and that their effects are not so skewed that
    a mean over `n` seeds needs its own shape. With one seed it covers the test examples alone. The order of
    seeds and of examples does not matter. Fast where the differences take few values, as counts do.
    """
    squares, seeds, examples = _compute_effects(differences)
    n, m = squares.n_seeds, squares.n_examples
    first, first_square, first_freedom = np.zeros(resamples), squares.seed_square, max(n - 1, 1)
    if n > 1 and seeds[-1] - seeds[0] > 1e-12:
        first = _resample_mean(seeds, rng, resamples)
    elif n > 1:
        first_square, first_freedom = squares.noise_square, (n - 1) * (m - 1)
        first = math.sqrt(first_square / (n * m)) * rng.standard_normal(resamples)
    own = squares.example_square - squares.noise_square
    # what is left of rounding is no variance
    second_square = own if own > 1e-12 * squares.example_square else 0.0
    second = np.zeros(resamples)
    if second_square > 0:
        share = second_square / squares.example_square
        second = math.sqrt(share) * _resample_mean(examples, rng, resamples)
    if first_square + second_square == 0:
        return first + second
    # ratios, as squares of tiny numbers would vanish
    ratio = first_square / (first_square + second_square)
    freedom = 1 / (ratio**2 / first_freedom + (1 - ratio) ** 2 / (m - 1))
    # the two ways take the seeds' part at the same level, so that their average is one of quantiles
    level = rng.random(resamples)
    separate = first * _spread(first_freedom, level)
    separate += second * np.sqrt((m - 1) / rng.chisquare(m - 1, size=resamples))
    joint = (first + second) * _spread(freedom, level)
    return SEPARATE * separate + (1 - SEPARATE) * joint


def _resample_mean(
    effects: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Return means of resampled, sorted `effects`, scaled to vary as means of new effects would."""
    k = len(effects)
    # sums of whole numbers differ by rounding at most: equal effects are drawn as one kind
    values, counts = np.unique(effects.round(12), return_counts=True)
    step = max(1, CELLS // len(values))
    means = np.concatenate(
        [
            rng.multinomial(k, counts / k, size=min(step, resamples - start)) @ values / k
            for start in range(0, resamples, step)
        ]
    )
    return means * math.sqrt(k / (k - 1))


def _spread(freedom: float, level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return true over estimated standard deviation at these levels: sqrt(freedom / chi2(freedom))."""
    return np.sqrt(freedom / chdtri(freedom, level))


def estimate(mean: float, spread: NDArray[np.float64], confidence: float = 0.95) -> Estimate:
    """Return `mean` with the symmetric interval that `spread` (bootstrap deviations) gives, and its p-value.

    p = (1 + number of deviations at least as large as the mean) / (1 + number of deviations), two-sided,
    against a true mean of 0 (Davison and Hinkley 1997, eq. 4.11). No deviation at all gives an interval of
    no width.
    """
    sizes = np.sort(np.abs(spread))
    # the half width is the deviation that decides: the mean is beyond it exactly when p < 1 - confidence
    beyond = math.ceil(round((1 - confidence) * (len(sizes) + 1), 6)) - 1
    half = float(sizes[-max(beyond, 1)])
    # as many rounding errors as the sum had terms must not decide a tie
    at_least = len(sizes) - int(np.searchsorted(sizes, abs(mean) - 1e-12))
    return Estimate(mean, mean - half, mean + half, (1 + at_least) / (1 + len(sizes)))


def paired_bootstrap(
    differences: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES, confidence: float = 0.95
) -> Estimate:
    """Return the mean of `differences` (seeds x examples) and its interval and p.

    These come from `resample_deviations`."""
    deviations = resample_deviations(differences, rng, resamples)
    return estimate(compute_components(differences).mean, deviations, confidence)


def average(datasets: Sequence[ArrayLike], confidence: float = 0.95) -> Estimate:
    """Return the mean of the mean differences of several datasets, with its interval and p.

    datasets: a matrix of differences each, seeds x at least 2 examples, with at least 2 seeds; they weigh the
    same and are independent. Student's t, with the pooled degrees of freedom of all parts of the variance
    (Satterthwaite 1946): averaging bootstrap deviations that are widened a dataset each, as
    `resample_deviations` makes them, would cover 97 to 99% with 3 to 5 seeds. Raises ValueError for one seed.
    """
    found = [compute_components(differences) for differences in datasets]
    mean = math.fsum(each.mean for each in found) / len(found)
    parts = [part for each in found for part in _list_parts(each)]
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    error = math.sqrt(variance) / len(found)
    freedom = 1 / math.fsum((part / variance) ** 2 / own for part, own in parts)
    half = float(student_t.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * student_t.sf(abs(mean) / error, freedom)))


def _list_parts(found: Components) -> list[tuple[float, int]]:
    """Return the seeds' and the examples' part in the variance of the mean, with degrees of freedom."""
    n, m = found.n_seeds, found.n_examples
    if n == 1:
        raise ValueError("expected at least 2 seeds; one says nothing about the variation between seeds")
    seeds, freedom = found.seed_square, n - 1
    if seeds <= 1e-12 * found.noise_square:  # all seeds have the very same mean, as counts may
        seeds, freedom = found.noise_square, (n - 1) * (m - 1)
    return [(seeds / (n * m), freedom), (found.examples / m, m - 1)]

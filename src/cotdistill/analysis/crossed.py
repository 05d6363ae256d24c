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

    Units are test examples, or groups of them that share a text. Mean squares are scaled such that
    `unit_square / (n_seeds n_units)` is the units' part in the variance of the mean, and likewise the
    others, whatever the units' sizes. With one seed, seeds and noise cannot be told from units: `seed_square`
    and `noise_square` are 0.
    """

    n_seeds: int
    n_units: int
    mean: float
    seed_square: float
    unit_square: float
    noise_square: float
    freedom: float
    """degrees of freedom of the units' part, see `count_freedom`"""

    @property
    def seeds(self) -> float:
        """Variance between seeds, at least 0; NaN with one seed, which says nothing about it."""
        if self.n_seeds == 1:
            return math.nan
        return max(self.seed_square - self.noise_square, 0.0) / self.n_units

    @property
    def units(self) -> float:
        """Variance between units, at least 0."""
        return max(self.unit_square - self.noise_square, 0.0) / self.n_seeds

    @property
    def noise(self) -> float:
        """Variance of what is neither the seed's nor the unit's."""
        return self.noise_square


@dataclass(frozen=True)
class Estimate:
    """A mean, its interval, and the p-value that says the same: `p < 1 - confidence` when 0 is outside."""

    mean: float
    low: float
    high: float
    p: float


def gather(
    differences: NDArray[np.float64], groups: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the sums of each seed over each group, seeds x groups, and how many examples each group has.

    differences: seeds x examples. groups: a name for each example. Groups are in sorted order.
    """
    names, places, sizes = np.unique(np.asarray(groups).astype(str), return_inverse=True, return_counts=True)
    sums = np.zeros((len(differences), len(names)))
    np.add.at(sums.T, places, differences.T)
    return sums, sizes


def count_freedom(sizes: ArrayLike) -> float:
    """Return the degrees of freedom of the variance between units of these sizes (Satterthwaite 1946).

    As in Bell and McCaffrey (2002, Survey Methodology 28(2)), for a mean: the variance is a quadratic form in
    the units' means, and twice the square of its expectation is divided by its variance, where all units'
    means vary alike. That is the cautious end: large groups usually vary less. Units of one size have one
    degree of freedom less than there are units.
    """
    weights, corrections = _weigh(np.asarray(sizes, dtype=np.float64))
    factors = weights**2 / corrections
    squares, both, total = weights @ weights, factors @ weights, factors.sum()
    # the trace of the squared matrix of the form, diag(f) - f w' - w f' + sum(f) w w'
    trace = factors @ factors - 4 * factors @ (factors * weights) + 2 * total * factors @ weights**2
    trace += 2 * (factors @ factors) * squares + 2 * both**2
    trace += total**2 * squares**2 - 4 * total * both * squares
    return float(squares**2 / trace)


def _weigh(sizes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each unit's weight in the mean, and by how much its squared deviation from it is too small.

    A unit pulls the mean towards itself: where all units' means vary alike, its squared deviation is
    `(1 - w)^2 + sum of the others' w^2` of their variance; `1 - 1 / k` for k units of one size.
    """
    weights = sizes / sizes.sum()
    return weights, 1 - 2 * weights + float(weights @ weights)


def compute_components(sums: ArrayLike, sizes: ArrayLike | None = None) -> Components:
    """Return the mean squares of differences. Raises ValueError for one unit.

    sums: seeds x units, differences added up over the examples of a unit. sizes: examples of each unit;
    default 1 each.
    """
    return _compute_effects(sums, sizes)[0]


def _compute_effects(
    sums: ArrayLike, sizes: ArrayLike | None
) -> tuple[Components, NDArray[np.float64], NDArray[np.float64]]:
    """Return the components, and the sorted effects of seeds and of units on the mean.

    A unit's effect is what it adds to the mean, corrected as in `_weigh`, times the number of units.
    """
    matrix = np.asarray(sums, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 1 or matrix.shape[1] < 2 or not np.isfinite(matrix).all():
        raise ValueError(f"expected finite differences, seeds x at least 2 units; found shape {matrix.shape}")
    n, k = matrix.shape
    counts = np.ones(k) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if counts.shape != (k,) or not (counts >= 1).all():
        raise ValueError(f"expected a size of 1 or more for each of {k} units; found {counts}")
    m = float(counts.sum())
    mean = float(matrix.sum() / (n * m))
    of_seeds, of_units = matrix.sum(axis=1) / m, matrix.sum(axis=0) / n
    scale = k / m / np.sqrt(_weigh(counts)[1] * k / (k - 1))
    seeds = np.sort(of_seeds - mean)
    units = np.sort((of_units - mean * counts) * scale)
    seed_square = noise_square = 0.0
    if n > 1:
        seed_square = k * float(seeds @ seeds) / (n - 1)
        rest = (matrix - of_units - np.outer(of_seeds - mean, counts)) * scale
        squares = float(np.sort(rest.ravel() ** 2).sum())
        # what is left of rounding is no noise
        if squares > 1e-12 * float(((matrix * scale) ** 2).sum()):
            noise_square = squares / ((n - 1) * (k - 1))
    unit_square = n * float(units @ units) / (k - 1)
    freedom = k - 1 if counts.min() == counts.max() else count_freedom(counts)
    return Components(n, k, mean, seed_square, unit_square, noise_square, freedom), seeds, units


def resample_deviations(
    sums: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES, sizes: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return bootstrap deviations of the mean, `resamples` of them; `sums` and `sizes` as in `gather`.

    Seeds and units are resampled independently, as in the crossed ("pigeonhole") bootstrap of Owen (2007,
    Ann. Appl. Stat. 1(2)), with the three corrections that few seeds need:

    - effects are resampled, not cells: a resample of cells counts the noise up to three times. The effects of
      units are shrunk to the variance that is theirs, so the noise counts once, with the seeds;
    - effects are scaled by sqrt(k / (k - 1)), as k resampled ones vary less than new ones would (Hesterberg
      2015, Am. Stat. 69(4)); those of units of several sizes as `_weigh` says;
    - the parts are divided by the root of a chi-square over its degrees of freedom, as their variances are
      estimates. Two classical ways of doing so are averaged: each part by its own, which for normal effects
      is the Behrens-Fisher distribution (Fisher 1935) and covers too much, and the sum by Satterthwaite's
      (1946), which covers too little. The weight is such that both errors are small for 3 seeds. Where one
      part is all, both are Student's t. Resamples are not studentised by their own spread: that of 3
      resampled seeds is often 0.

    Where all seeds have the very same mean, as counts may, the noise is taken for the seeds' part.

    It assumes that seeds and units are drawn independently, and that their effects are not so skewed that
    a mean over `n` seeds needs its own shape. With one seed it covers the test examples alone. The order of
    seeds and of units does not matter. Fast where the differences take few values, as counts do.
    """
    squares, seeds, units = _compute_effects(sums, sizes)
    n, k = squares.n_seeds, squares.n_units
    first, first_square, first_freedom = np.zeros(resamples), squares.seed_square, float(max(n - 1, 1))
    if n > 1 and seeds[-1] - seeds[0] > 1e-12:
        first = _resample_mean(seeds, rng, resamples)
    elif n > 1:
        first_square, first_freedom = squares.noise_square, (n - 1) * squares.freedom
        first = math.sqrt(first_square / (n * k)) * rng.standard_normal(resamples)
    own = squares.unit_square - squares.noise_square
    # what is left of rounding is no variance
    second_square = own if own > 1e-12 * squares.unit_square else 0.0
    second = np.zeros(resamples)
    if second_square > 0:
        share = second_square / squares.unit_square
        second = math.sqrt(share) * _resample_mean(units, rng, resamples)
    if first_square + second_square == 0:
        return first + second
    # ratios, as squares of tiny numbers would vanish
    ratio = first_square / (first_square + second_square)
    freedom = 1 / (ratio**2 / first_freedom + (1 - ratio) ** 2 / squares.freedom)
    # the two ways take the seeds' part at the same level, so that their average is one of quantiles
    level = rng.random(resamples)
    separate = first * _spread(first_freedom, level)
    separate += second * np.sqrt(squares.freedom / rng.chisquare(squares.freedom, size=resamples))
    joint = (first + second) * _spread(freedom, level)
    return SEPARATE * separate + (1 - SEPARATE) * joint


def _resample_mean(
    effects: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Return means of resampled, sorted `effects`, scaled to vary as means of new effects would.

    Their mean square stays what it is where their mean is not 0, as with units of several sizes.
    """
    k = len(effects)
    centred = effects - effects.mean()
    # sums of whole numbers differ by rounding at most: equal effects are drawn as one kind
    values, counts = np.unique(centred.round(12), return_counts=True)
    step = max(1, CELLS // len(values))
    means = np.concatenate(
        [
            rng.multinomial(k, counts / k, size=min(step, resamples - start)) @ values / k
            for start in range(0, resamples, step)
        ]
    )
    scale = (effects @ effects) / (centred @ centred) if centred.any() else 1.0
    return means * math.sqrt(scale * k / (k - 1))


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
    sums: ArrayLike,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    sizes: ArrayLike | None = None,
) -> Estimate:
    """Return the mean difference and its interval and p, from `resample_deviations`; `sums` as there."""
    deviations = resample_deviations(sums, rng, resamples, sizes)
    return estimate(compute_components(sums, sizes).mean, deviations, confidence)


def average(datasets: Sequence[Components], confidence: float = 0.95) -> Estimate:
    """Return the mean of the mean differences of several datasets, with its interval and p.

    datasets: what was found on each, with at least 2 seeds; they weigh the same and are independent.
    Student's t, with the pooled degrees of freedom of all parts of the variance (Satterthwaite 1946):
    averaging bootstrap deviations that are widened a dataset each, as `resample_deviations` makes them, would
    cover 97 to 99% with 3 to 5 seeds. Raises ValueError for one seed.
    """
    mean = math.fsum(each.mean for each in datasets) / len(datasets)
    parts = [part for each in datasets for part in _list_parts(each)]
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    error = math.sqrt(variance) / len(datasets)
    freedom = 1 / math.fsum((part / variance) ** 2 / own for part, own in parts)
    half = float(student_t.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * student_t.sf(abs(mean) / error, freedom)))


def _list_parts(found: Components) -> list[tuple[float, float]]:
    """Return the seeds' and the units' part in the variance of the mean, with degrees of freedom."""
    n, k = found.n_seeds, found.n_units
    if n == 1:
        raise ValueError("expected at least 2 seeds; one says nothing about the variation between seeds")
    seeds, freedom = found.seed_square, float(n - 1)
    if seeds <= 1e-12 * found.noise_square:  # all seeds have the very same mean, as counts may
        seeds, freedom = found.noise_square, (n - 1) * found.freedom
    return [(seeds / (n * k), freedom), (found.units / k, found.freedom)]

"""The interval over seeds and test examples: its parts against other implementations, and its coverage."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from cotdistill.analysis.crossed import (
    Estimate,
    average,
    compute_components,
    count_freedom,
    estimate,
    gather,
    paired_bootstrap,
    resample_deviations,
)

FEW = 999
MATRICES = arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(2, 12)), elements=st.integers(-1, 1))


def bootstrap(matrix: np.ndarray, seed: int = 0, resamples: int = FEW) -> Estimate:
    return paired_bootstrap(matrix, np.random.default_rng(seed), resamples)


def test_mean_squares_are_those_of_statsmodels() -> None:
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    matrix = np.random.default_rng(0).integers(-1, 2, size=(4, 9))
    rows = [(value, seed, example) for (seed, example), value in np.ndenumerate(matrix)]
    frame = pd.DataFrame(rows, columns=["value", "seed", "example"])
    table = anova_lm(ols("value ~ C(seed) + C(example)", frame).fit())
    ours = compute_components(matrix)
    found = [ours.seed_square, ours.unit_square, ours.noise_square]
    assert found == pytest.approx(list(table["mean_sq"]))


def test_variance_components_are_unbiased() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        seeds, examples = 0.3 * rng.normal(size=(6, 1)), 0.5 * rng.normal(size=40)
        ours = compute_components(seeds + examples + rng.normal(size=(6, 40)))
        # not cut at 0, which would be a bias
        own = (ours.seed_square - ours.noise_square) / 40, (ours.unit_square - ours.noise_square) / 6
        found.append((*own, ours.noise))
    error = np.std(found, axis=0) / math.sqrt(300)
    assert np.all(np.abs(np.mean(found, axis=0) - [0.09, 0.25, 1.0]) < 4 * error)


@given(MATRICES, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_seeds_and_examples_does_not_matter(matrix: np.ndarray, random: object) -> None:
    rows, columns = list(range(matrix.shape[0])), list(range(matrix.shape[1]))
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(columns)  # type: ignore[attr-defined]
    assert bootstrap(matrix[rows][:, columns]) == bootstrap(matrix)


@given(MATRICES)
@settings(max_examples=30, deadline=None)
def test_p_and_interval_say_the_same(matrix: np.ndarray) -> None:
    found = bootstrap(matrix)
    outside = found.low > 1e-12 or found.high < -1e-12
    assert (found.p < 0.05) == outside
    assert found.mean == pytest.approx(matrix.mean()) and found.low <= found.mean <= found.high


@given(MATRICES, st.integers(-3, 3))
@settings(max_examples=30, deadline=None)
def test_a_shift_moves_the_interval(matrix: np.ndarray, shift: int) -> None:
    plain, moved = bootstrap(matrix), bootstrap(matrix + shift)
    assert (moved.low - shift, moved.high - shift) == pytest.approx((plain.low, plain.high), abs=1e-9)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_identical_answers(seeds: int) -> None:
    assert bootstrap(np.zeros((seeds, 50))) == Estimate(0, 0, 0, 1)


def test_seeds_that_tie_are_not_certain() -> None:
    # each seed has one more example right, each another one: the seeds' means do not differ at all
    for n in (2, 3):
        found = bootstrap(np.eye(n, 200))
        assert found.p > 0.05 and found.low < 0 < found.high


def test_one_seed_is_the_t_test_over_examples() -> None:
    matrix = np.random.default_rng(2).integers(-1, 2, size=(1, 300))
    found = bootstrap(matrix, resamples=19_999)
    reference = stats.ttest_1samp(matrix[0], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.004)


def test_seeds_alone_are_the_t_test_over_seeds() -> None:
    # no difference between examples, so the interval is that of the 30 seeds' means
    means = np.random.default_rng(3).normal(size=(30, 1))
    found = bootstrap(np.repeat(means, 50, axis=1), resamples=19_999)
    reference = stats.ttest_1samp(means[:, 0], 0).confidence_interval(0.95)
    width = reference.high - reference.low
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.03 * width)


def test_the_deviations_have_the_variance_of_the_mean() -> None:
    rng = np.random.default_rng(4)
    matrix = 0.2 * rng.normal(size=(40, 1)) + rng.normal(size=60) + rng.normal(size=(40, 60))
    ours = compute_components(matrix)
    expected = 39 / 37 * ours.seed_square / 2400 + 59 / 57 * ours.units / 60
    found = resample_deviations(matrix, np.random.default_rng(0), 40_000).var()
    assert found == pytest.approx(expected, rel=0.04)


def test_the_p_value_counts_deviations() -> None:
    spread = np.arange(-9.5, 10)  # 20 of them, 2 of size 9.5, 4 of at least 8.5
    assert estimate(9.5, spread).p == pytest.approx(3 / 21)
    assert estimate(-8.5, spread).p == pytest.approx(5 / 21)
    assert estimate(100, spread).p == pytest.approx(1 / 21)
    assert estimate(0, spread).p == 1


def test_groups_add_up_what_their_examples_say() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.integers(-1, 2, size=(4, 9)).astype(float)
    sums, sizes = gather(matrix, ["b", "a", "b", "c", "c", "c", "a", "d", "b"])
    assert sizes.tolist() == [2, 3, 3, 1]
    assert np.array_equal(sums[:, 2], matrix[:, 3:6].sum(axis=1))  # c, the third name
    assert sums.sum(axis=1) == pytest.approx(matrix.sum(axis=1))
    alone, ones = gather(matrix, [f"{9 - place}" for place in range(9)])
    assert np.array_equal(alone, matrix[:, ::-1]) and set(ones) == {1}


def test_copied_examples_are_no_more_evidence() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.integers(-1, 2, size=(5, 40)).astype(float)
    copied, sizes = gather(np.repeat(matrix, 4, axis=1), np.repeat(np.arange(40).astype(str), 4))
    once, twice = compute_components(matrix), compute_components(copied, sizes)
    assert asdict(twice) == pytest.approx(asdict(once))


def _weighted_form(weights: np.ndarray) -> np.ndarray:
    """The matrix of the estimated variance of a weighted mean, as a quadratic form in the units' means."""
    k = len(weights)
    residuals = np.eye(k) - np.outer(np.ones(k), weights)
    corrections = (residuals**2).sum(axis=1)  # expected squared residuals where all units vary alike
    return np.asarray(residuals.T @ np.diag(weights**2 / corrections) @ residuals)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_degrees_of_freedom_of_unequal_groups_against_the_whole_matrix(sizes: list[int]) -> None:
    form = _weighted_form(np.array(sizes) / sum(sizes))
    expected = np.trace(form) ** 2 / np.trace(form @ form)
    assert count_freedom(sizes) == pytest.approx(expected, rel=1e-6)
    assert count_freedom([3] * len(sizes)) == pytest.approx(len(sizes) - 1)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=8), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_parts_of_unequal_groups_against_plain_sums(sizes: list[int], n: int, seed: int) -> None:
    means = np.random.default_rng(seed).normal(size=(n, len(sizes)))
    found = compute_components(means * sizes, sizes)
    weights = np.array(sizes) / sum(sizes)
    form, by_seed = _weighted_form(weights), means @ weights
    assert found.mean == pytest.approx(by_seed.mean())
    units = means.mean(axis=0)
    assert found.unit_square / (n * len(sizes)) == pytest.approx(units @ form @ units, abs=1e-12)
    if n > 1:
        assert found.seed_square / (n * len(sizes)) == pytest.approx(by_seed.var(ddof=1) / n)
        rest = sum(row @ form @ row for row in means - units) / (n - 1)
        assert found.noise_square / len(sizes) == pytest.approx(rest, abs=1e-12)


def test_the_deviations_of_unequal_groups_have_the_variance_of_the_mean() -> None:
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 20, size=60)
    sums = sizes * (0.2 * rng.normal(size=(40, 1)) + rng.normal(size=60) + rng.normal(size=(40, 60)))
    ours = compute_components(sums, sizes)
    freedom = ours.freedom
    expected = 39 / 37 * ours.seed_square / 2400 + freedom / (freedom - 2) * ours.units / 60
    found = resample_deviations(sums, np.random.default_rng(0), 40_000, sizes).var()
    assert found == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("sizes", [[1, 2], [1, 0, 2], [1, math.nan, 1]])
def test_sizes_that_do_not_fit_are_refused(sizes: list[float]) -> None:
    with pytest.raises(ValueError, match="expected a size of 1 or more for each of 3 units"):
        compute_components(np.zeros((2, 3)), sizes)


def test_an_average_of_one_dataset_is_students_t_where_seeds_are_all_that_varies() -> None:
    means = np.array([0.1, 0.3, -0.1, 0.2, 0.2])
    found = average([compute_components(np.repeat(means[:, None], 40, axis=1))])
    reference = stats.ttest_1samp(means, 0)
    bounds = reference.confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((means.mean(), *bounds), rel=1e-9)
    assert found.p == pytest.approx(reference.pvalue)


@given(st.lists(st.tuples(st.integers(2, 6), st.integers(2, 12)), min_size=2, max_size=2), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_an_average_of_two_datasets_is_welchs_interval(shapes: list[tuple[int, int]], seed: int) -> None:
    # seeds alone vary: the difference of two means by Welch, with one side's sign turned, is twice the mean
    rng = np.random.default_rng(seed)
    sides = [rng.normal(size=n) for n, _ in shapes]
    found = average([
        compute_components(np.repeat(side[:, None], m, axis=1))
        for side, (_, m) in zip(sides, shapes, strict=True)
    ])  # fmt: skip
    welch = stats.ttest_ind(sides[0], -sides[1], equal_var=False)
    bounds = welch.confidence_interval(0.95)
    assert (2 * found.low, 2 * found.high) == pytest.approx((bounds.low, bounds.high), rel=1e-6)
    assert found.p == pytest.approx(welch.pvalue, rel=1e-6)


def test_an_average_feels_every_dataset() -> None:
    rng = np.random.default_rng(4)
    parts = [rng.integers(-1, 2, size=(5, 50)).astype(float) for _ in range(4)]
    before = average([compute_components(part) for part in parts]).mean
    after = average([compute_components(part) for part in (*parts[:3], parts[3] - 0.2)]).mean
    assert after == pytest.approx(before - 0.05)


def test_an_average_of_answers_that_are_all_alike() -> None:
    found = average([compute_components(np.zeros((3, 10)))] * 2)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        average([compute_components(np.zeros((1, 10)))])


@pytest.mark.parametrize("matrix", [np.zeros(4), np.zeros((2, 1)), np.zeros((0, 4)), [[0, math.nan]]])
def test_what_is_no_matrix_of_differences_is_refused(matrix: object) -> None:
    with pytest.raises(ValueError, match="expected finite differences"):
        compute_components(matrix)  # type: ignore[arg-type]


def in_band(share: float, repetitions: int, low: float, high: float) -> bool:
    """Whether a true share within [low, high] could have given `share`, at odds of 1 to 1,000."""
    count = round(share * repetitions)
    above = stats.binom.cdf(count, repetitions, low) > 0.0005
    return bool(above and stats.binom.sf(count - 1, repetitions, high) > 0.0005)


@pytest.mark.parametrize("world", ["no effect", "no effect, seeds differ", "4 points"])
@pytest.mark.parametrize(("n", "m"), [(3, 100), (5, 200)])
def test_coverage_and_false_positives(world: str, n: int, m: int) -> None:
    from benchmarks.simulated import intervals

    repetitions = 300
    rng = np.random.default_rng([n, m])
    found = intervals.simulate(intervals.WORLDS[world], n, m, repetitions, rng)
    assert in_band(found.share("covers"), repetitions, 0.93, 0.97)
    if world.startswith("no effect"):
        assert in_band(found.share("p < 0.05"), repetitions, 0.0, 0.06)


def test_the_check_of_coverage_can_fail() -> None:
    from benchmarks.simulated import intervals

    world = intervals.WORLDS["no effect, seeds differ"]
    found = intervals.simulate(world, 3, 1000, 300, np.random.default_rng(0))
    assert in_band(found.share("covers"), 300, 0.93, 0.97)
    # the plain percentile interval is too narrow for 3 seeds; McNemar's on one seed is no test of methods
    assert not in_band(found.share("percentile"), 300, 0.93, 0.97)
    assert not in_band(found.share("McNemar"), 300, 0.0, 0.06)


@pytest.mark.parametrize(
    ("shape", "least", "most"),
    [
        ("50 of 4", 0.93, 0.97),
        ("117 of 1 to 7 (SVAMP)", 0.93, 0.98),
        # few groups of which one is large: cautious
        ("one of 66, 134 of 1", 0.93, 1.0),
        ("40 of 60/1, 60/2, 60/3, ...", 0.93, 1.0),
    ],
)
def test_groups_as_units_cover(shape: str, least: float, most: float) -> None:
    from benchmarks.simulated import clusters

    world = replace(clusters.WORLD, sizes=clusters.SHAPES[shape])
    found = clusters.simulate(world, 5, 300, np.random.default_rng(0))
    assert in_band(found.share("covers"), 300, least, most)
    assert in_band(found.share("p < 0.05"), 300, 0.0, 0.06)
    if most == 1:
        assert not in_band(found.share("p < 0.05, examples as units"), 300, 0.0, 0.06)

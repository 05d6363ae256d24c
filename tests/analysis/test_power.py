"""Detectable differences and numbers of seeds: against statsmodels, and by simulating the test itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cotdistill.analysis.crossed import Components, compute_components, paired_bootstrap
from cotdistill.analysis.power import bound_variances, count_seeds_needed, detectable, detectable_range


def design(n: int, m: int, seeds: float, examples: float, noise: float, mean: float = 0.0) -> Components:
    """Components with these variances."""
    return Components(n, m, mean, noise + m * seeds, noise + n * examples, noise, m - 1)


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize("n", [3, 5, 20])
def test_seeds_alone_against_statsmodels(n: int, alpha: float) -> None:
    from statsmodels.stats.power import TTestPower

    found = design(n, 1000, seeds=0.04, examples=0, noise=0)
    effect = detectable(found, alpha) / 0.2
    assert TTestPower().power(effect, nobs=n, alpha=alpha) == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("n", [3, 5])
def test_the_test_in_use_has_the_power(n: int) -> None:
    rng = np.random.default_rng(n)
    m, repetitions = 100, 250
    size = detectable(design(n, m, seeds=0.002, examples=0.1, noise=0.4))
    found = 0
    for _ in range(repetitions):
        effects = math.sqrt(0.002) * rng.normal(size=(n, 1)) + math.sqrt(0.1) * rng.normal(size=m)
        matrix = size + effects + math.sqrt(0.4) * rng.normal(size=(n, m))
        found += paired_bootstrap(matrix, rng, 499).p < 0.05
    assert 0.7 < found / repetitions < 0.88


def test_more_seeds_detect_less_down_to_the_test_set() -> None:
    found = design(5, 200, seeds=0.001, examples=0.05, noise=0.2)
    sizes = [detectable(found, n_seeds=n) for n in (2, 3, 5, 10, 100, 1000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 2.8 * math.sqrt(0.05 / 200)


@pytest.mark.parametrize("size", [0.05, 0.08, 0.2])
def test_the_number_of_seeds_is_the_least_that_does(size: float) -> None:
    found = design(5, 500, seeds=0.002, examples=0.05, noise=0.2)
    for needed, end in zip(count_seeds_needed(found, size), bound_variances(found), strict=True):
        assert needed is not None and detectable(end, n_seeds=needed) <= size
        assert needed == 2 or detectable(end, n_seeds=needed - 1) > size


def test_seeds_do_not_depend_on_the_observed_difference() -> None:
    found = [design(5, 500, 0.002, 0.05, 0.2, mean=mean) for mean in (0.0, 0.3)]
    assert count_seeds_needed(found[0], 0.05) == count_seeds_needed(found[1], 0.05)


@pytest.mark.parametrize(
    "found",
    [
        design(5, 200, 0.001, 0.05, 0.2),  # too few test examples, however many the seeds
        design(5, 10_000, 100.0, 0, 0),  # more than MOST_SEEDS
        design(1, 200, 0, 0.05, 0),  # the seeds' variance is unknown
    ],
)
def test_where_no_number_of_seeds_can_be_named(found: Components) -> None:
    assert count_seeds_needed(found, 0.01) == (None, None)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_range_holds_what_the_true_variances_can_detect(n: int) -> None:
    rng = np.random.default_rng(n)
    m, seeds, examples, noise = 200, 0.13**2, 0.05, 0.2
    truth = detectable(design(n, m, seeds, examples, noise))
    inside = 0
    for _ in range(200):
        effects = math.sqrt(seeds) * rng.normal(size=(n, 1)) + math.sqrt(examples) * rng.normal(size=m)
        found = compute_components(effects + math.sqrt(noise) * rng.normal(size=(n, m)))
        low, high = detectable_range(found)
        inside += low <= truth <= high
    assert inside / 200 > 0.85


def test_the_range_of_seeds_holds_the_number_near_what_the_test_set_allows() -> None:
    rng = np.random.default_rng(0)
    n, m, seeds, examples, noise = 5, 1000, 0.02**2, 0.05, 0.2
    known = design(n, m, seeds, examples, noise)
    truth = next(number for number in range(2, 1001) if detectable(known, n_seeds=number) <= 0.02)
    assert truth > 100
    inside = 0
    for _ in range(60):
        effects = math.sqrt(seeds) * rng.normal(size=(n, 1)) + math.sqrt(examples) * rng.normal(size=m)
        found = compute_components(effects + math.sqrt(noise) * rng.normal(size=(n, m)))
        low, high = count_seeds_needed(found, 0.02)
        inside += (low or math.inf) <= truth <= (high or math.inf)
    assert inside / 60 > 0.75


def test_few_seeds_and_nothing_that_varies() -> None:
    assert math.isnan(detectable(compute_components(np.zeros((5, 100)))))
    # two seeds at a corrected level: more than any accuracy, but a number
    assert detectable(design(2, 200, 0.01, 0.05, 0.2), 0.05 / 12) > 1
    alone = compute_components(np.random.default_rng(0).integers(-1, 2, size=(1, 400)))
    assert math.isnan(alone.seeds) and detectable(alone) == pytest.approx(2.80 * 0.816 / 20, rel=0.05)

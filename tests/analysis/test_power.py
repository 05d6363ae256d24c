"""Detectable differences and numbers of seeds: against statsmodels, and by simulating the test itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cotdistill.analysis.crossed import Components, compute_components, paired_bootstrap
from cotdistill.analysis.power import MOST_SEEDS, count_seeds_needed, detectable


def design(n: int, m: int, seeds: float, examples: float, noise: float, mean: float = 0.0) -> Components:
    """Components with these variances."""
    return Components(n, m, mean, noise + m * seeds, noise + n * examples, noise)


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


@pytest.mark.parametrize("mean", [0.05, -0.08, 0.2])
def test_the_number_of_seeds_is_the_least_that_does(mean: float) -> None:
    found = design(5, 500, seeds=0.002, examples=0.05, noise=0.2, mean=mean)
    needed, why = count_seeds_needed(found)
    assert needed is not None and why == ""
    assert detectable(found, n_seeds=needed) <= abs(mean)
    assert needed == 2 or detectable(found, n_seeds=needed - 1) > abs(mean)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (design(5, 200, 0.001, 0.05, 0.2), "is 0"),
        (design(5, 200, 0.001, 0.05, 0.2, mean=0.01), "200 test examples are too few"),
        (design(5, 10_000, 0.01, 0, 0, mean=0.001), f"more than {MOST_SEEDS}"),
        (design(1, 200, 0, 0.05, 0, mean=0.3), "with one seed"),
    ],
)
def test_why_no_number_of_seeds_can_be_named(found: Components, why: str) -> None:
    needed, reason = count_seeds_needed(found)
    assert needed is None and why in reason


def test_few_seeds_and_nothing_that_varies() -> None:
    assert math.isnan(detectable(compute_components(np.zeros((5, 100)))))
    # two seeds at a corrected level: more than any accuracy, but a number
    assert detectable(design(2, 200, 0.01, 0.05, 0.2), 0.05 / 12) > 1
    alone = compute_components(np.random.default_rng(0).integers(-1, 2, size=(1, 400)))
    assert math.isnan(alone.seeds) and detectable(alone) == pytest.approx(2.80 * 0.816 / 20, rel=0.05)

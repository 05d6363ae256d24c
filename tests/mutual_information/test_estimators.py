"""Estimators against samples whose mutual information is known."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import digamma

from cotdistill.evaluation.information import gaussian_fit as gaussian
from cotdistill.evaluation.information import infonce_bound as infonce
from cotdistill.evaluation.information.estimate import Estimate
from cotdistill.evaluation.information.estimators import ESTIMATORS
from cotdistill.evaluation.information.measure import LEAST, _describe, estimate

names = pytest.mark.parametrize("name", ESTIMATORS)


def correlated(n: int, d: int, rho: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian pairs, each coordinate of one side correlated with one of the other, both sides mixed."""
    random = np.random.default_rng(seed)
    z, noise = random.standard_normal((n, d)), random.standard_normal((n, d))
    v = rho * z + math.sqrt(1 - rho**2) * noise
    # information does not change under invertible maps of a side
    left, right = (random.standard_normal((d, d)) + 2 * np.eye(d) for _ in range(2))
    return torch.from_numpy(z @ left), torch.from_numpy(v @ right + 5)


def known(d: int, rho: float) -> float:
    return -d / 2 * math.log(1 - rho**2)


def mean_of(name: str, n: int, d: int, rho: float, seeds: int) -> float:
    found = [estimate(name, *correlated(n, d, rho, seed), seed).value for seed in range(seeds)]
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("n", "d", "rho"),
    [(2000, 1, 0.5), (2000, 2, 0.7), (2000, 5, 0.9), (2000, 16, 0.8), (256, 2, 0.7), (256, 10, 0.5),
     (256, 16, 0.9), (64, 2, 0.9)],
)  # fmt: skip
def test_gaussian_is_within_a_tenth_of_known_information(n: int, d: int, rho: float):
    seeds = 4 if n > 1000 else 24  # what is left of the error is chance
    assert mean_of("gaussian", n, d, rho, seeds) == pytest.approx(known(d, rho), rel=0.1)


@pytest.mark.parametrize(("n", "d", "rho"), [(2000, 1, 0.9), (2000, 2, 0.7), (2000, 5, 0.5)])
def test_infonce_is_within_a_tenth_of_known_information_well_below_its_ceiling(n: int, d: int, rho: float):
    assert mean_of("infonce", n, d, rho, 3) == pytest.approx(known(d, rho), rel=0.1)


@pytest.mark.parametrize(("n", "d", "rho"), [(256, 2, 0.7), (256, 5, 0.9), (2000, 5, 0.9)])
def test_infonce_stays_below_known_information(n: int, d: int, rho: float):
    found = mean_of("infonce", n, d, rho, 8 if n < 1000 else 2)
    assert 0.5 * known(d, rho) < found < known(d, rho)


@names
@pytest.mark.parametrize(("n", "d"), [(60, 8), (256, 1), (256, 64), (1000, 20)])
def test_independent_samples_have_an_interval_that_covers_0(name: str, n: int, d: int):
    seeds = 20 if n < 1000 else 4
    found = [estimate(name, *correlated(n, d, 0.0, seed), seed) for seed in range(seeds)]
    assert sum(each.low <= 0 <= each.high for each in found) >= 0.9 * seeds
    assert abs(np.mean([each.value for each in found])) < 0.1


@names
def test_samples_that_are_equal_stay_below_the_ceiling(name: str):
    z, _ = correlated(300, 20, 0.0, 1)
    found = estimate(name, z, z.clone(), 0)
    assert math.isfinite(found.value)
    if name == "infonce":
        assert 0.9 * found.ceiling < found.value <= found.ceiling
    else:
        assert found.ceiling is None
        assert found.value < 3.11 * (300 // 16)


@pytest.mark.parametrize("n", [LEAST, 61, 255, 256, 257, 700])
def test_no_sample_adds_more_than_the_ceiling(n: int):
    z, v = correlated(n, 3, 0.95, n)
    halves = n // 2, n - n // 2
    found = infonce.estimate_infonce(z, v, 3)
    sizes = [half // -(-half // infonce.BATCH) for half in halves]
    assert found.ceiling == pytest.approx(math.log(max(sizes)))
    assert found.value <= found.ceiling <= math.log(infonce.BATCH) + 1e-12
    assert found.n == sum(size * -(-half // infonce.BATCH) for size, half in zip(sizes, halves, strict=True))


def test_infonce_sees_what_is_not_linear_and_gaussian_does_not():
    random = np.random.default_rng(4)
    z = random.standard_normal((1500, 1))
    v = z**2 + 0.3 * random.standard_normal((1500, 1))
    pair = torch.from_numpy(z), torch.from_numpy(v)
    assert estimate("infonce", *pair, 0).low > 0.3
    assert estimate("gaussian", *pair, 0).value < 0.1


def test_infonce_is_fitted_and_read_on_different_rows():
    """In-sample, 30 directions of 60 unrelated rows would be found perfectly."""
    random = np.random.default_rng(5)
    pair = (torch.from_numpy(random.standard_normal((60, 30))) for _ in range(2))
    assert estimate("infonce", *pair, 0).value < 0.2


def test_gaussian_is_the_formula_of_canonical_correlations_less_its_bias():
    z, v = correlated(400, 1, 0.6, 7)
    rho = stats.pearsonr(z[:, 0].numpy(), v[:, 0].numpy()).statistic / (1 + gaussian.SHRINKAGE)
    # the bias of one pair: log(1 - r^2) of independent samples is that of a beta variate
    bias = (digamma(399 / 2) - digamma(398 / 2)) / 2
    assert gaussian.estimate_gaussian(z, v).value == pytest.approx(-math.log(1 - rho**2) / 2 - bias, rel=1e-9)


@names
def test_an_estimate_is_the_same_again_and_leaves_the_random_state(name: str):
    z, v = correlated(150, 6, 0.8, 2)
    state = torch.get_rng_state()
    found = [estimate(name, z, v, 1) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert found[0].low < found[0].value < found[0].high


@names
@pytest.mark.parametrize("still", [(True, False), (False, True), (True, True)])
def test_a_side_that_stands_still_has_no_information(name: str, still: tuple[bool, bool]):
    random = np.random.default_rng(6)
    moving = [torch.from_numpy(random.standard_normal((80, 5))) for _ in still]
    pair = [torch.full((80, 5), 0.1) if each else x for each, x in zip(still, moving, strict=True)]
    found = estimate(name, *pair, 0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


@names
def test_more_dimensions_than_samples_and_copies_of_one_direction_are_no_trouble(name: str):
    random = np.random.default_rng(8)
    wide = torch.from_numpy(random.standard_normal((LEAST, 300)))
    flat = torch.from_numpy(random.standard_normal((LEAST, 1)) @ random.standard_normal((1, 300)))
    for pair in ((wide, flat), (flat, wide), (wide.float(), wide.float()), (flat, 2 * flat)):
        assert math.isfinite(estimate(name, *pair, 0).value)


@names
def test_too_few_or_unpaired_samples_are_refused(name: str):
    z, v = correlated(LEAST, 2, 0.5, 0)
    for pair in ((z[1:], v[1:]), (z, v[1:])):
        with pytest.raises(ValueError, match=f"at least {LEAST}"):
            estimate(name, *pair, 0)


@names
def test_an_estimator_says_how_to_read_it(name: str):
    estimator = ESTIMATORS[name]
    assert estimator.name == name and estimator.bound in {"lower bound", "not a bound"}
    assert all((estimator.kind, estimator.ceiling, estimator.source))
    described = _describe(name, Estimate(1.0, 0.5, 1.5, 200, 4.6 if name == "infonce" else None))
    assert described == {
        "value": 1.0, "low": 0.5, "high": 1.5, "n": 200, "bound": estimator.bound,
        **({"ceiling": 4.6} if name == "infonce" else {}),
    }  # fmt: skip


def test_the_names_are_read_without_torch():
    code = "import cotdistill.evaluation.information.estimators, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

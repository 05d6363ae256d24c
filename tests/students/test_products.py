"""Products by the quicker library are those of torch's own, and so are their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from cotdistill.students.packed import products


@pytest.fixture(params=[0, 10**12], ids=["quicker", "torch"])
def least(request: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(products, "LEAST", request.param)
    monkeypatch.setattr(products, "LEAST_WEIGHT", request.param)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (300, 64, 48), (65, 33, 1000)])
def test_product_is_that_of_float64(least: None, shape: tuple[int, int, int]):
    n, k, m = shape
    torch.manual_seed(0)
    x, weight = torch.randn(n, k), torch.randn(m, k)
    for given in (weight, weight.T.contiguous().T):  # a weight as it is, and a transposed view
        found = products.multiply(x, given)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 7, 64, 65])
def test_a_fixed_weight_gives_the_same_products(least: None, rows: int):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(1000, 33))
    fixed = products.FixedWeight(weight)
    for each in (rows, 2 * rows):
        x = torch.randn(each, 33)
        torch.testing.assert_close(fixed(x).double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-4)
        wanted = F.gelu(x.double() @ weight.double().T, approximate="tanh")
        found = products.FixedWeight(weight, gelu=True)(x)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    low = products.FixedWeight(weight.bfloat16())
    assert low(x.bfloat16()).dtype == torch.bfloat16


def test_gradients_are_those_of_a_linear_layer(least: None):
    torch.manual_seed(0)
    x, weight = torch.randn(40, 24, requires_grad=True), torch.randn(16, 24, requires_grad=True)
    given = torch.randn(40, 16)
    found = torch.autograd.grad(products.linear(x, weight), (x, weight), given)
    wanted = torch.autograd.grad(F.linear(x, weight), (x, weight), given)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_same_product_has_the_same_bits(least: None):
    torch.manual_seed(0)
    x, weight = torch.randn(500, 64), torch.randn(128, 64)
    first = products.multiply(x, weight)
    # in other places of memory, and after other shapes
    for rows in (1, 33, 500):
        products.multiply(torch.randn(rows, 64), weight)
        assert torch.equal(products.multiply(x.clone(), weight.clone()), first)


def test_autocast_is_obeyed(least: None):
    x, weight = torch.randn(40, 24), torch.randn(16, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight).dtype == torch.bfloat16
    assert products.multiply(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16


def test_a_build_that_may_round_to_less_than_float32_is_not_asked(monkeypatch: Any):
    """Somebody who sets torch to bf16 products asks torch for them, not us."""
    products._has_fast_onednn.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "fp32_precision", "bf16")
    try:
        assert not products._has_fast_onednn("cpu")
    finally:
        monkeypatch.undo()
        products._has_fast_onednn.cache_clear()
    assert not products._has_fast_onednn("cuda")

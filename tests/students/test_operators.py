"""What is computed where a release of torch lacks an operator is what the operator computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cotdistill.students.engines import make_learner, make_writer
from cotdistill.students.packed import operators, products
from tests.methods import plain
from tests.methods.test_step import batches, build, student


class Without:
    """A namespace of operators that lacks some."""

    def __init__(self, namespace: Any, *missing: str) -> None:
        self.namespace, self.missing = namespace, missing

    def __getattr__(self, name: str) -> Any:
        if name in self.missing:
            raise AttributeError(name)
        return getattr(self.namespace, name)


class Operators:
    """`torch.ops` as a release without the private operators would have it."""

    def __init__(self) -> None:
        self.aten = Without(torch.ops.aten, "_softmax_backward_data", "gelu_backward")
        self.mkldnn = Without(torch.ops.mkldnn, "_linear_pointwise", "_reorder_linear_weight")


@pytest.fixture
def lacking(monkeypatch: Any) -> Any:
    """Take the private operators away; gives the function that does."""

    def lack() -> None:
        monkeypatch.setattr(operators.torch, "ops", Operators())
        products._has_fast_onednn.cache_clear()

    yield lack
    monkeypatch.undo()
    products._has_fast_onednn.cache_clear()


def test_the_gradient_of_softmax_is_the_operators(lacking: Any):
    grad, scores = torch.randn(3, 4, 7), 3 * torch.randn(3, 4, 7)
    probabilities = scores.softmax(-1)
    expected = operators.softmax_backward(grad, probabilities)
    leaf = scores.clone().requires_grad_()
    leaf.softmax(-1).backward(grad)
    torch.testing.assert_close(expected, leaf.grad)
    lacking()
    torch.testing.assert_close(operators.softmax_backward(grad, probabilities), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_gelu_is_the_operators(lacking: Any, dtype: torch.dtype):
    grad, x = torch.randn(5, 9).to(dtype), 3 * torch.randn(5, 9).to(dtype)
    expected = operators.gelu_backward(grad, x)
    lacking()
    with torch.no_grad():  # as in an autograd function's backward
        found = operators.gelu_backward(grad, x)
    assert found.dtype == dtype and not found.requires_grad
    torch.testing.assert_close(found, expected)


@pytest.mark.skipif(not operators.has_onednn(), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("gelu", [False, True])
def test_onednns_product_is_torchs(gelu: bool):
    x, weight = torch.randn(6, 32), torch.randn(16, 32)
    expected = torch.nn.functional.linear(x, weight)
    expected = torch.nn.functional.gelu(expected, approximate="tanh") if gelu else expected
    for each in (weight, operators.lay_out_for_onednn(weight)):
        found = operators.multiply_by_onednn(x, each, gelu)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_release_without_onednns_operators_is_told(lacking: Any):
    lacking()
    assert not operators.has_onednn()


@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
def test_an_engine_without_the_operators_computes_the_same(lacking: Any, monkeypatch: Any, kind: str):
    monkeypatch.setattr(products, "LEAST", 0)
    monkeypatch.setattr(products, "LEAST_WEIGHT", 0)
    model, method = student(kind, tied=False), build("mi", {})
    given_, inputs = batches(method, size=8), [torch.arange(3, 9), torch.arange(20, 24)]

    def compute() -> tuple[dict[str, float], Any, Any]:
        model.zero_grad()
        found = make_learner("packed", model).add_gradients(given_, method, seed=1)
        writer = make_writer("packed", model)
        written = writer.write(writer.read(inputs), 8, 1)
        return {key: value.item() for key, value in found.items()}, plain.grads(model, method), written

    terms, gradients, written = compute()
    lacking()
    assert products._has_fast_onednn("cpu") is False
    lean, own, again = compute()
    assert lean == pytest.approx(terms, rel=1e-5)
    for key, value in gradients.items():
        assert (own[key] - value).norm() <= 1e-5 * value.norm() + 1e-8, key
    assert [tokens for tokens, _ in again] == [tokens for tokens, _ in written]
    assert [log for _, log in again] == pytest.approx([log for _, log in written], rel=1e-4)

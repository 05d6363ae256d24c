"""The mutual-information term against loops that follow its definition line by line, and its golden value.

Both ways to compute it are held to the same: the public functions on logits, with autograd's gradient, and
what training does, which pools each task's probabilities by itself with a gradient of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill import mutual_information
from cotdistill.mutual_information.pooling import mean_state, pool
from tests.methods import chunked

WAYS = {"public": mutual_information, "training": chunked}
ways: Any = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
Shape = tuple[int, int, int, int]
shapes = st.tuples(*(st.integers(1, most) for most in (4, 4, 5, 7)))
seeds = st.integers(0, 2**32 - 1)
poolings = st.sampled_from(["max", "mean"])


def softmax(row: Any) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def pooled(logits: np.ndarray, mask: np.ndarray, pooling: str) -> list[float]:
    """One example's (T, V) logits to V numbers, by the definition."""
    real = [softmax(row) for row, keep in zip(logits.tolist(), mask, strict=True) if keep]
    columns = list(zip(*real, strict=True))
    values = [max(column) if pooling == "max" else sum(column) / len(real) for column in columns]
    return values


def normalised(values: list[float]) -> list[float]:
    return [value / sum(values) for value in values]


def draw(shape: Shape, seed: int, scale: float = 3.0) -> tuple[np.ndarray, ...]:
    """Logits of both tasks and masks whose real positions come first, at least one an example."""
    batch, label_length, rationale_length, vocabulary = shape
    random = np.random.default_rng(seed)
    label = scale * random.standard_normal((batch, label_length, vocabulary))
    rationale = scale * random.standard_normal((batch, rationale_length, vocabulary))
    masks = [
        np.arange(length)[None] < random.integers(1, length + 1, size=(batch, 1))
        for length in (label_length, rationale_length)
    ]
    return label, rationale, masks[0], masks[1]


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def golden_logits(length: int, k: int) -> torch.Tensor:
    i = torch.arange(2 * length * 11, dtype=torch.float64).reshape(2, length, 11)
    return (3 * torch.sin(0.7 * i + k) + 2 * torch.cos(0.013 * i * k + 1)).float()


@ways
def test_released_gives_the_golden_value_and_gradient(way: Any):
    label, rationale = golden_logits(3, 1), golden_logits(5, 2).requires_grad_()
    loss = way.released(label, rationale)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(5.85973883, rel=1e-6)
    assert rationale.grad.norm().item() == pytest.approx(0.06447206, rel=1e-6)


@ways
@settings(deadline=None)
@given(shapes, seeds)
def test_released_equals_its_definition(way: Any, shape: Shape, seed: int):
    label, rationale, _, _ = draw(shape, seed)
    total = 0.0
    for example in range(shape[0]):
        every_label, every_rationale = np.ones(shape[1]), np.ones(shape[2])
        p = pooled(label[example], every_label, "max")
        again = softmax(pooled(rationale[example], every_rationale, "max"))
        total -= sum(a * math.log(b) for a, b in zip(p, again, strict=True))
    assert way.released(*tensors(label, rationale)).item() == pytest.approx(total / shape[0], rel=1e-9)


@ways
@settings(deadline=None)
@given(shapes, seeds, poolings, st.booleans())
def test_paper_equals_its_definition(way: Any, shape: Shape, seed: int, pooling: Any, stop: bool):
    label, rationale, label_mask, rationale_mask = draw(shape, seed)
    total = 0.0
    for example in range(shape[0]):
        p = normalised(pooled(label[example], label_mask[example], pooling))
        q = normalised(pooled(rationale[example], rationale_mask[example], pooling))
        assert sum(p) == pytest.approx(1) and sum(q) == pytest.approx(1)
        total -= sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    given_ = tensors(label, rationale, label_mask, rationale_mask)
    found = way.paper(*given_, pooling=pooling, stop_gradient=stop)
    assert found.item() == pytest.approx(total / shape[0], rel=1e-9)


@ways
def test_released_gives_the_label_logits_no_gradient(way: Any):
    label, rationale = (logits.requires_grad_() for logits in tensors(*draw((2, 3, 4, 6), 1)[:2]))
    way.released(label, rationale).backward()
    assert label.grad is None
    assert rationale.grad.abs().sum() > 0


@ways
def test_released_includes_padding(way: Any):
    label, rationale, _, _ = draw((2, 3, 4, 6), 2)
    longer = np.concatenate([rationale, 9 * np.eye(6)[None, :2].repeat(2, 0)], axis=1)
    padded, plain = way.released(*tensors(label, longer)), way.released(*tensors(label, rationale))
    assert padded.item() != pytest.approx(plain.item())


@ways
@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_decides_whether_paper_reaches_the_label_logits(way: Any, stop: bool):
    label, rationale, *masks = tensors(*draw((2, 3, 4, 6), 3))
    way.paper(label.requires_grad_(), rationale.requires_grad_(), *masks, stop_gradient=stop).backward()
    assert rationale.grad.abs().sum() > 0
    assert (label.grad is None) == stop


@ways
@settings(deadline=None)
@given(shapes, seeds, poolings, st.sampled_from([0.0, -50.0, 1e4, float("inf"), float("nan")]))
def test_paper_never_sees_what_stands_in_padding(
    way: Any, shape: Shape, seed: int, pooling: Any, garbage: float
):
    label, rationale, label_mask, rationale_mask = draw(shape, seed)
    values, gradients = [], []
    for fill in (1.0, garbage):
        a, b, mask_a, mask_b = tensors(label.copy(), rationale.copy(), label_mask, rationale_mask)
        a[~mask_a], b[~mask_b] = fill, fill
        b.requires_grad_()
        loss = way.paper(a, b, mask_a, mask_b, pooling=pooling)
        loss.backward()
        values.append(loss.item())
        gradients.append(b.grad)
        assert torch.equal(b.grad[~mask_b], torch.zeros_like(b.grad[~mask_b]))
    assert values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])


@ways
@settings(deadline=None)
@given(shapes, seeds, poolings)
def test_paper_is_at_least_the_entropy_of_the_label_side(way: Any, shape: Shape, seed: int, pooling: Any):
    label, rationale, label_mask, rationale_mask = draw(shape, seed)
    entropies = []
    for example in range(shape[0]):
        p = normalised(pooled(label[example], label_mask[example], pooling))
        entropies.append(-sum(value * math.log(value) for value in p))
    entropy = sum(entropies) / shape[0]
    other = way.paper(*tensors(label, rationale, label_mask, rationale_mask), pooling=pooling)
    same = way.paper(*tensors(label, label, label_mask, label_mask), pooling=pooling)
    assert other.item() >= entropy - 1e-9 and entropy >= 0
    assert same.item() == pytest.approx(entropy, rel=1e-9, abs=1e-12)


@ways
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_gradient_of_paper_is_right(way: Any, pooling: Any):
    label, rationale, label_mask, rationale_mask = tensors(*draw((2, 3, 4, 5), 4, scale=1.0))

    def term(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return way.paper(a, b, label_mask, rationale_mask, pooling=pooling, stop_gradient=False)

    assert torch.autograd.gradcheck(term, (label.requires_grad_(), rationale.requires_grad_()))


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pooling", ["released", "max", "mean"])
def test_extreme_logits_stay_finite(way: Any, pooling: Any, dtype: torch.dtype):
    label = torch.zeros(2, 3, 5)
    label[..., 0] = 1e4
    rationale = torch.zeros(2, 4, 5)
    rationale[..., 1] = 1e4  # sure of another word: q of the label's word underflows to 0
    rationale[1] *= -1
    label, rationale = label.to(dtype), rationale.to(dtype).requires_grad_()
    masks = torch.ones(2, 3), torch.ones(2, 4)
    plain = pooling == "released"
    loss = way.released(label, rationale) if plain else way.paper(label, rationale, *masks, pooling=pooling)
    loss.backward()
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item()) and loss.item() > 0
    assert rationale.grad.isfinite().all()


@settings(deadline=None)
@given(shapes, seeds, poolings, st.booleans())
def test_pool_equals_its_definition(shape: Shape, seed: int, pooling: Any, every: bool):
    logits, _, mask, _ = draw(shape, seed)
    if every:
        mask = np.ones_like(mask)
    expected = [pooled(row, keep, pooling) for row, keep in zip(logits, mask, strict=True)]
    found = pool(torch.from_numpy(logits), None if every else torch.from_numpy(mask), pooling)
    assert found.dtype == torch.float64 and found.shape == (shape[0], shape[3])
    assert found.tolist() == [pytest.approx(row, rel=1e-9) for row in expected]


@settings(deadline=None)
@given(shapes, seeds, poolings, st.sampled_from([1e4, float("inf"), float("-inf"), float("nan")]))
def test_pool_never_sees_what_stands_in_padding(shape: Shape, seed: int, pooling: Any, garbage: float):
    logits, _, mask, _ = tensors(*draw(shape, seed))
    dirty = logits.masked_fill(~mask[..., None], garbage)
    assert torch.equal(pool(dirty, mask, pooling), pool(logits, mask, pooling))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pool_computes_in_float32_at_least(dtype: torch.dtype):
    logits = torch.from_numpy(draw((2, 3, 4, 6), 5)[0]).to(dtype)
    found = pool(logits, None)
    assert found.dtype == torch.float32 and torch.equal(found, pool(logits.float(), None))


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_an_example_without_a_real_position_is_refused(pooling: Any):
    label, rationale = tensors(*draw((2, 3, 4, 6), 6)[:2])
    full, none = torch.ones(2, 4), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    message = "every example needs at least one real position"
    with pytest.raises(ValueError, match=message):
        mutual_information.paper(label, rationale, none, full, pooling)
    with pytest.raises(ValueError, match=message):
        pool(label, none, pooling)
    with pytest.raises(ValueError, match=message):
        mean_state(label, none)

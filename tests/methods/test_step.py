"""The step without padding gives the terms and gradients of plain padded passes, however it is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import T5Config, T5ForConditionalGeneration

from cotdistill import methods
from cotdistill.data.batches import Batch
from cotdistill.methods import Method, Needs, Term, dss
from cotdistill.students.packed import layout as layouts
from cotdistill.students.packed import learning as stepping
from cotdistill.students.packed import products
from cotdistill.students.packed.kernels import Dropout
from cotdistill.students.packed.kernels import attend as attended
from cotdistill.students.packed.layout import Layout
from cotdistill.students.packed.learning import Learner
from tests.methods import plain

V, D = 300, 32
CPU = torch.device("cpu")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("finetune", {}), ("single_task", {}), ("dss", {}), ("mi", {}), ("mi", {"beta": 0}),
    ("mi", {"variant": "paper"}), ("mi", {"variant": "paper", "pooling": "mean", "stop_gradient": False}),
    ("infonce", {}), ("gaussian", {}),
]  # fmt: skip


def student(kind: str = "gated-gelu", tied: bool = True, dropout: float = 0.0) -> Any:
    """An original T5 (relu, tied), a v1.1 (gated GELU, untied), or between them."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=V, d_model=D, d_ff=64, d_kv=8, num_heads=4, num_layers=2, dropout_rate=dropout,
        feed_forward_proj=kind, decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).train()
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(V, D) / D**0.5)
        model.config.scale_decoder_outputs = False
    return model


def batches(method: Method, size: int = 40, seed: int = 3) -> dict[str, Batch]:
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for number, task in enumerate(method.tasks):
        lengths = torch.randint(2, 20, (size,), generator=draw)
        targets = torch.randint(1, 4 if number == 0 else 13, (size,), generator=draw)
        ids, labels = (
            [torch.randint(3, V, (length,), generator=draw) for length in each.tolist()]
            for each in (lengths, targets)
        )
        found[task.name] = Batch(ids, labels, int(targets.max()))
    return found


def build(name: str, options: dict[str, Any]) -> Method:
    method = methods.build(name, options)
    method.equip(D, seed=5)
    return method


@pytest.mark.parametrize(("kind", "tied"), [("gated-gelu", True), ("gated-gelu", False), ("relu", True),
                                            ("gated-silu", False)])  # fmt: skip
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_terms_and_gradients_are_those_of_plain_passes(
    name: str, options: dict[str, Any], kind: str, tied: bool, monkeypatch: Any
):
    model, method = student(kind, tied), build(name, options)
    given_ = batches(method)
    values, gradients = plain.gradients(model, method, given_)
    if options == {"beta": 0}:
        del values["mutual_information"]  # logged without the padding that would change training
    for memory, chunk, group, least in ((10**9, 10**9, 10**6, 10**9), (10**6, 3000, 4, 0), (1, 1, 1, 10**9)):
        monkeypatch.setattr(products, "LEAST", least)
        monkeypatch.setattr(stepping, "MEMORY", memory)
        monkeypatch.setattr(stepping, "CHUNK", chunk)
        monkeypatch.setattr(layouts, "GROUP", group)
        model.zero_grad()
        if method.learned is not None:
            method.learned.zero_grad()
        sums = Learner(model).add_gradients(given_, method, seed=1)
        found = {key: value.item() for key, value in sums.items()}
        assert {key: found[key] for key in values} == pytest.approx(values, rel=1e-5)
        for key, value in plain.grads(model, method).items():
            assert (value - gradients[key]).norm() <= 1e-5 * gradients[key].norm() + 1e-8, key


def test_bf16_stays_near_fp32():
    model, method = student(tied=False), build("mi", {"variant": "paper"})
    given_ = batches(method)
    with torch.autocast("cpu", torch.bfloat16):
        values, gradients = plain.gradients(model, method, given_)
    exact, _ = plain.gradients(model, method, given_)
    model.zero_grad()
    sums = Learner(model, "bf16").add_gradients(given_, method, 1)
    found = {key: value.item() for key, value in sums.items()}
    assert found == pytest.approx(exact, rel=0.02)
    ours = torch.cat([value.flatten() for value in plain.grads(model, method).values()])
    theirs = torch.cat([value.flatten() for value in gradients.values()])
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


class Sure(dss.DSS):
    """DSS that lowers the label's entropy: a method that reads all logits."""

    needs = Needs(logits=True)

    def terms(self, outputs: Any) -> Any:
        label = outputs["label"]
        entropy = -(label.logits.softmax(-1) * label.logits.log_softmax(-1)).sum(-1)
        mean = (entropy * label.mask).sum(1) / label.mask.sum(1)
        return {**super().terms(outputs), "entropy": Term(mean.mean() * label.share, 0.3)}


def test_a_method_may_read_all_logits(monkeypatch: Any):
    model, method = student(), Sure(dss.Settings())
    given_ = batches(method)
    values, gradients = plain.gradients(model, method, given_)
    monkeypatch.setattr(stepping, "CHUNK", 3000)
    model.zero_grad()
    found = {key: value.item() for key, value in Learner(model).add_gradients(given_, method, seed=1).items()}
    assert found == pytest.approx(values, rel=1e-5)
    for key, value in plain.grads(model, method).items():
        torch.testing.assert_close(value, gradients[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_masks_keep_the_rate_and_the_mean(rate: float):
    dropout = Dropout(rate, seed=4, device=CPU)
    mask = dropout.draw_mask(400, 251)
    if rate == 0:
        assert mask is None
        return
    assert mask is not None and mask.shape == (400, 251) and mask.dtype == torch.bool
    n = mask.numel()
    assert abs(mask.float().mean().item() - (1 - rate)) < 5 * (rate * (1 - rate) / n) ** 0.5
    assert dropout.scale == pytest.approx(1 / (1 - rate), rel=1e-3)
    assert (1 - dropout.dropped / 2**16) * dropout.scale == pytest.approx(1, abs=1e-12)
    flat = mask.flatten().float() - mask.float().mean()
    assert abs((flat[1:] * flat[:-1]).mean().item()) < 5 / n**0.5, "neighbours are independent"


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=9), st.integers(1, 3), st.data())
def test_a_layout_splits_and_joins(lengths: list[int], heads: int, data: Any):
    cut = data.draw(st.integers(0, len(lengths)))
    layout = Layout(lengths, [size for size in (cut, len(lengths) - cut) if size], CPU)
    packed = torch.arange(1.0, sum(lengths) * heads * 2 + 1).view(-1, heads * 2)
    for zeros in (False, True):
        whole = [group.split(packed, heads, zeros) for group in layout.groups]
        joined = [group.join(each) for group, each in zip(layout.groups, whole, strict=True)]
        assert torch.equal(torch.cat(joined), packed)
        start, rows = 0, [row for each in whole for row in each]
        for length, row in zip(lengths, rows, strict=True):
            own = packed[start : start + length].view(length, heads, 2).transpose(0, 1)
            assert torch.equal(row[:, :length], own)
            assert not zeros or not row[:, length:].any()
            start += length


def test_the_gradient_of_attention_is_right():
    lengths, other = [3, 1, 4], [2, 5, 3]
    draw = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(sum(rows), 4, generator=draw, dtype=torch.float64).requires_grad_()
        for rows in (lengths, other, other)
    )
    bias = torch.randn(1, 2, 4, 5, generator=draw, dtype=torch.float64).requires_grad_()
    layouts = Layout(lengths, [2, 1], CPU), Layout(other, [2, 1], CPU)

    def attend(*tensors: torch.Tensor) -> torch.Tensor:
        return attended(*tensors, *layouts, 2, Dropout(0.4, 1, CPU))  # type: ignore[arg-type]

    # scores are in float32 by design
    assert torch.autograd.gradcheck(attend, (query, key, value, bias), eps=1e-3, atol=1e-3, rtol=1e-2)

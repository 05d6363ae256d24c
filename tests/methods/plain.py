"""The plain way that the training step is held against: one padded pass a task, all logits at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from cotdistill.data.batches import IGNORED, Batch
from cotdistill.methods import Method, TaskOutput, Term
from cotdistill.students.interface import total


def terms(
    model: Any, method: Method, batches: Mapping[str, Batch], tokens: Mapping[str, int] | None = None,
    share: float = 1.0,
) -> dict[str, Term]:  # fmt: skip
    outputs = {}
    for name, batch in batches.items():
        input_ids, attention_mask, labels = batch.pad()
        found = model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False,
            decoder_input_ids=model._shift_right(labels), output_hidden_states=True,
        )
        mask = labels != IGNORED
        summed = F.cross_entropy(found.logits.flatten(0, 1), labels.flatten(), reduction="sum")
        cross_entropy = summed / (tokens[name] if tokens else batch.tokens)
        pooled = pool(found.logits, None if method.needs.padding else mask, method.needs.pooling or "max")
        outputs[name] = TaskOutput(
            cross_entropy, share, mask, pooled, found.decoder_hidden_states[-1], found.logits
        )
    return method.terms(outputs)


def pool(logits: torch.Tensor, mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """(B, V) of (B, T, V), by autograd."""
    mask = torch.ones(logits.shape[:2], dtype=torch.bool) if mask is None else mask
    probabilities = logits.softmax(-1) * mask[..., None]
    return probabilities.amax(1) if pooling == "max" else probabilities.sum(1) / mask.sum(1, keepdim=True)


def gradients(
    model: Any, method: Method, batches: Mapping[str, Batch]
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The loss and its terms, and the gradient of every parameter, the method's own included."""
    model.zero_grad()
    found = terms(model, method, batches)
    loss = total(found)
    loss.backward()
    values = {"total": loss.item(), **{name: term.value.item() for name, term in found.items()}}
    return values, grads(model, method)


def grads(model: Any, method: Method) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    if method.learned is not None:
        named |= {f"own {name}": p for name, p in method.learned.named_parameters()}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named.items()}

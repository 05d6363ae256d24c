"""The mutual-information terms on logits, pooled as training pools them, with its own gradient."""

from __future__ import annotations

from typing import Any

import torch

from cotdistill import mutual_information
from cotdistill.data.batches import IGNORED
from cotdistill.methods import Needs
from cotdistill.students.packed.output_chunk import OutputChunk as Chunk


class Identity:
    """An output layer whose states are the logits."""

    def compute_logits(self, states: torch.Tensor) -> torch.Tensor:
        return states.to(torch.promote_types(states.dtype, torch.float32))

    def backward(self, states: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        return grad.to(states.dtype)


class Pool(torch.autograd.Function):
    @staticmethod
    def chunk(logits: torch.Tensor, mask: torch.Tensor, pooling: Any) -> Chunk:
        packed, lengths = logits[mask], mask.sum(1).tolist()
        labels = torch.full((len(packed),), IGNORED)
        return Chunk(Identity(), Needs(pooling=pooling), packed, labels, lengths, 1, 1.0)  # type: ignore[arg-type]

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, mask: torch.Tensor, pooling: Any) -> torch.Tensor:
        ctx.save_for_backward(logits, mask)
        ctx.pooling = pooling
        pooled = Pool.chunk(logits, mask, pooling).pooled
        assert pooled is not None
        return pooled.detach()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, mask = ctx.saved_tensors
        chunk = Pool.chunk(logits, mask, ctx.pooling)
        assert chunk.pooled is not None
        chunk.pooled.grad = grad
        into = torch.zeros_like(logits)
        into[mask] = chunk.backward()
        return into, None, None


def released(label: torch.Tensor, rationale: torch.Tensor) -> torch.Tensor:
    every = [torch.ones(logits.shape[:2], dtype=torch.bool) for logits in (label, rationale)]
    p, q = (Pool.apply(*each, "max") for each in zip((label, rationale), every, strict=True))
    return mutual_information.released_from_pooled(p, q)


def paper(
    label: torch.Tensor, rationale: torch.Tensor, label_mask: torch.Tensor, rationale_mask: torch.Tensor,
    pooling: str = "max", stop_gradient: bool = True,
) -> torch.Tensor:  # fmt: skip
    p = Pool.apply(label, label_mask.bool(), pooling)
    q = Pool.apply(rationale, rationale_mask.bool(), pooling)
    return mutual_information.paper_from_pooled(p, q, stop_gradient)

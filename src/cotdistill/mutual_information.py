"""The mutual-information term of Chen et al. 2024, in the two readings that exist.

With a variational q(v|z), I(Z;V) >= H(V) + E[log q(v|z)] (Barber and Agakov 2003): maximising the
bound is minimising a cross-entropy between the two tasks' outputs. `released` is what the published
code computes, `paper` the bound as derived; without both, nobody can tell the method from its bugs.
"""

from __future__ import annotations

from typing import Literal

import torch


def released(label_logits: torch.Tensor, rationale_logits: torch.Tensor) -> torch.Tensor:
    """The term as the published code computes it.

    label_logits: (B, Ty, V); rationale_logits: (B, Tr, V). Returns a scalar: the mean over examples
    of `-sum_v p_v log_softmax(q)_v`, where p and q are the maxima over positions, padding included,
    of each task's softmax. So q, already a probability, passes a second softmax, p does not sum to 1,
    and the gradient reaches the rationale logits only.
    """
    p = _probabilities(label_logits.detach()).amax(1)
    q = _probabilities(rationale_logits).amax(1)
    return -(p * q.log_softmax(-1)).sum(-1).mean()


def paper(
    label_logits: torch.Tensor,
    rationale_logits: torch.Tensor,
    label_mask: torch.Tensor,
    rationale_mask: torch.Tensor,
    pooling: Literal["max", "mean"] = "max",
    stop_gradient: bool = True,
) -> torch.Tensor:
    """The term as the paper derives it.

    label_logits: (B, Ty, V); rationale_logits: (B, Tr, V); masks: (B, T), true where a token is real.
    Returns a scalar: the mean over examples of `-sum_v p_v log q_v` with p and q pooled over the real
    positions and normalised to sum to 1. `stop_gradient` keeps the gradient from the label logits.
    Raises ValueError when an example has no real position or the pooling is unknown.
    """
    if stop_gradient:
        label_logits = label_logits.detach()
    p = _pooled(label_logits, label_mask, pooling)
    q = _pooled(rationale_logits, rationale_mask, pooling)
    # the smallest normal number stands for a probability that underflowed: its logarithm stays finite
    return -(p * q.clamp_min(torch.finfo(q.dtype).tiny).log()).sum(-1).mean()


def _pooled(logits: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B, T, V) logits to (B, V) distributions over the vocabulary."""
    mask = mask.bool()
    if not bool(mask.any(1).all()):
        raise ValueError("every example needs at least one real position")
    padding = ~mask.unsqueeze(-1)
    # masked before the softmax too: an infinite logit in padding would make the gradient NaN
    probabilities = _probabilities(logits.masked_fill(padding, 0.0)).masked_fill(padding, 0.0)
    if pooling == "max":
        pooled = probabilities.amax(1)
    elif pooling == "mean":
        pooled = probabilities.sum(1)
    else:
        raise ValueError(f"unknown pooling '{pooling}': expected 'max' or 'mean'")
    return pooled / pooled.sum(-1, keepdim=True)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Softmax over the vocabulary in at least float32: bf16 cannot tell 0.999 from 1."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)

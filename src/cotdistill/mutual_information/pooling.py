"""A target's positions made one: a distribution over the vocabulary, or a mean decoder state, an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def distribution(logits: torch.Tensor, mask: torch.Tensor, pooling: str = "max") -> torch.Tensor:
    """(B, T, V) logits to (B, V) distributions: pooled over the real positions, then normalised.

    mask: (B, T), true where a token is real; pooling: `max` or `mean` of the positions' softmax. Raises
    ValueError when an example has no real position or the pooling is unknown.
    """
    mask = _checked(mask)
    padding = ~mask.unsqueeze(-1)
    # masked before the softmax too: an infinite logit in padding would make the gradient NaN
    masked = probabilities(logits.masked_fill(padding, 0.0)).masked_fill(padding, 0.0)
    if pooling == "max":
        pooled = masked.amax(1)
    elif pooling == "mean":
        pooled = masked.sum(1)
    else:
        raise ValueError(f"unknown pooling '{pooling}': expected 'max' or 'mean'")
    return pooled / pooled.sum(-1, keepdim=True)


def state(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T, d_model) decoder states to (B, d_model): their mean over the real positions.

    In at least float32. Raises ValueError when an example has no real position.
    """
    mask = _checked(mask).unsqueeze(-1)
    return _wide(hidden).masked_fill(~mask, 0.0).sum(1) / mask.sum(1)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Softmax over the vocabulary in at least float32: bf16 cannot tell 0.999 from 1."""
    return _wide(logits).softmax(-1)


def _wide(values: torch.Tensor) -> torch.Tensor:
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))


def _checked(mask: torch.Tensor) -> torch.Tensor:
    mask = mask.bool()
    if not bool(mask.any(1).all()):
        raise ValueError("every example needs at least one real position")
    return mask

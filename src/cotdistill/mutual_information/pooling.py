"""Reduce the positions of an example's target to one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


def pool(
    logits: torch.Tensor, mask: torch.Tensor | None, pooling: Literal["max", "mean"] = "max"
) -> torch.Tensor:
    """Return (B, V): each token's largest (or mean) probability over an example's positions.

    logits: (B, T, V); mask: (B, T), true where a position counts, None for all of them. At least float32.
    Raises ValueError when an example has no position that counts.
    """
    logits = _widen(logits)
    if mask is not None:
        mask = _check(mask)
        # infinities and NaN in padding would come through a product with 0, and through its gradient
        logits = logits.masked_fill(~mask[..., None], 0.0)
    probabilities = logits.softmax(-1)
    if mask is not None:
        probabilities = probabilities * mask[..., None]
    if pooling == "max":
        return probabilities.amax(1)
    count = logits.shape[1] if mask is None else mask.sum(1, keepdim=True)
    return probabilities.sum(1) / count


def mean_state(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (B, d_model), the mean of (B, T, d_model) decoder states over the real positions.

    mask: (B, T). At least float32. Raises ValueError when an example has no real position.
    """
    mask = _check(mask).unsqueeze(-1)
    return _widen(hidden).masked_fill(~mask, 0.0).sum(1) / mask.sum(1)


def _widen(values: torch.Tensor) -> torch.Tensor:
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check(mask: torch.Tensor) -> torch.Tensor:
    mask = mask.bool()
    if not bool(mask.any(1).all()):
        raise ValueError("every example needs at least one real position")
    return mask

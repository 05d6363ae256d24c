"""A target's positions made one: the mean decoder state of an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def state(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T, d_model) decoder states to (B, d_model): their mean over the real positions.

    In at least float32. Raises ValueError when an example has no real position.
    """
    mask = _checked(mask).unsqueeze(-1)
    return _wide(hidden).masked_fill(~mask, 0.0).sum(1) / mask.sum(1)


def _wide(values: torch.Tensor) -> torch.Tensor:
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))


def _checked(mask: torch.Tensor) -> torch.Tensor:
    mask = mask.bool()
    if not bool(mask.any(1).all()):
        raise ValueError("every example needs at least one real position")
    return mask

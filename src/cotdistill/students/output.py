"""A T5's output layer: decoder states to logits, in training, scoring and generation alike."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


class OutputLayer:
    """The weights between the decoder's states and the logits, and their gradient."""

    def __init__(self, model: torch.nn.Module, precision: str) -> None:
        self.weight: torch.nn.Parameter = model.lm_head.weight  # type: ignore[union-attr,assignment]
        config: Any = model.config
        self.scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._cast = self.weight.detach().to(self.dtype)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, V) float32 of (n, d_model)."""
        return F.linear((states * self.scale).to(self.dtype), self._cast).float()

    def backward(self, states: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Adds to the weights' gradient; returns the states', (n, d_model) float32. grad: (n, V)."""
        grad, scaled = grad.to(self.dtype), (states * self.scale).to(self.dtype)
        if self.weight.grad is None:
            self.weight.grad = torch.zeros_like(self.weight)
        if self.dtype == torch.float32:
            self.weight.grad.addmm_(grad.T, scaled)
        else:
            self.weight.grad.add_(grad.T @ scaled)
        return (grad @ self._cast).float().mul_(self.scale)

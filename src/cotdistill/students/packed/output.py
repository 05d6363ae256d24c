"""A T5's output layer: decoder states to logits, in training, scoring and generation alike."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from cotdistill.students.packed.products import FixedWeight, multiply


class OutputLayer:
    """The weights between the decoder's states and the logits, with their gradient."""

    def __init__(self, model: torch.nn.Module, precision: str, fixed: bool = False) -> None:
        """Take the weights of a T5. precision: fp32 or bf16.

        fixed: the weights do not change while this is used, so they may be laid out once for many products.
        """
        self.weight: torch.nn.Parameter = model.lm_head.weight  # type: ignore[union-attr,assignment]
        config: Any = model.config
        self.scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._cast = self.weight.detach().to(self.dtype)
        self._product = FixedWeight(self._cast) if fixed else partial(multiply, weight=self._cast)

    def compute_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, V), float32, of states (n, d_model)."""
        return self._product((states * self.scale).to(self.dtype)).float()

    def backward(self, states: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Add to the weights' gradient; return the states' gradient, (n, d_model) float32. grad: (n, V)."""
        grad, scaled = grad.to(self.dtype), (states * self.scale).to(self.dtype)
        if self.weight.grad is None:
            self.weight.grad = (grad.T @ scaled).float()
        elif self.dtype == torch.float32:
            self.weight.grad.addmm_(grad.T, scaled)
        else:
            self.weight.grad.add_(grad.T @ scaled)
        return multiply(grad, self._cast.T).float().mul_(self.scale)


def exponentiate(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn (n, V) logits in place into exp(logit - highest); return the highest and the sums, (n, 1) each.

    Divided by the sums, the numbers are the softmax; the caller divides where it needs to, which saves a pass
    over n * V numbers.
    """
    highest = logits.amax(-1, keepdim=True)
    return highest, logits.sub_(highest).exp_().sum(-1, keepdim=True)


BLOCK = 128
"""logits that are compared at a time: argmax over a long row takes a CPU many times as long as amax"""


def choose_likeliest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's likeliest token of (n, V) logits and its probability, (n,) each.

    Of equal logits the first counts.
    """
    if logits.device.type == "cpu" and logits.shape[1] % BLOCK == 0:
        blocks = logits.unflatten(1, (-1, BLOCK))
        block = blocks.amax(-1).argmax(-1)
        tokens = block * BLOCK + blocks[torch.arange(len(blocks)), block].argmax(-1)
    else:
        tokens = logits.argmax(-1)
    return tokens, logits.softmax(-1).gather(1, tokens[:, None])[:, 0].clamp_(max=1)

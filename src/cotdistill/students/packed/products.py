"""Products of states with weights, by the faster of the two libraries that a CPU build of torch has.

torch multiplies float32 matrices with MKL, and has oneDNN for its compiler. Where it was measured (an AMD
EPYC) oneDNN is faster by 5 to 20%, except for a weight's gradient, whose operands it would have to transpose.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from cotdistill.students.packed import operators

LEAST = 2**28
"""multiplications, below which making oneDNN's code for a new shape (under 1 ms) does not pay"""
LEAST_WEIGHT = 2**17
"""numbers in a weight that stays, below which it does not pay either"""


def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x @ weight.T, (n, k) and (m, k) to (n, m); weight may be a transposed view. No gradient."""
    if len(x) * weight.numel() < LEAST or x.dtype != torch.float32 or not _has_fast_onednn(x.device.type):
        return F.linear(x, weight)
    return operators.multiply_by_onednn(x, weight)


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x @ weight.T, (n, k) and (m, k) to (n, m), with gradients; under autocast in its type."""
    if torch.is_autocast_enabled(x.device.type) or x.dtype != torch.float32:
        return F.linear(x, weight)
    if not torch.is_grad_enabled():
        return multiply(x, weight)
    result: torch.Tensor = _LinearFunction.apply(x, weight)
    return result


class FixedWeight:
    """A weight that does not change over many products x @ weight.T: laid out once, in oneDNN's layout.

    Generation multiplies few rows with all weights at each position; with 64 rows such a product takes about
    half the time.
    """

    def __init__(self, weight: torch.Tensor, gelu: bool = False) -> None:
        """Lay the weight (m, k) out.

        gelu: apply GELU, in its tanh form, to each product; oneDNN does it while the product is in the CPU's
        cache.
        """
        self.weight, self.gelu = weight.detach(), gelu
        large = weight.numel() >= LEAST_WEIGHT
        self.laid_out = large and weight.dtype == torch.float32 and _has_fast_onednn(weight.device.type)
        if self.laid_out:
            self.weight = operators.lay_out_for_onednn(self.weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product (n, m) of x: (n, k). No gradient."""
        if not self.laid_out:
            plain = F.linear(x, self.weight)
            return F.gelu(plain, approximate="tanh") if self.gelu else plain
        return operators.multiply_by_onednn(x, self.weight, self.gelu)


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        return multiply(grad, weight.T), grad.T @ x


@cache
def _has_fast_onednn(device: str) -> bool:
    """Whether oneDNN multiplies float32 here, in float32 arithmetic; False where that was not measured."""
    return (
        device == "cpu"
        and platform.machine().lower() in ("x86_64", "amd64")
        and operators.has_onednn()
        and torch.backends.mkldnn.fp32_precision in ("none", "ieee")
    )

"""Torch's private operators, each with what is computed instead where a release of torch lacks it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


def has_onednn() -> bool:
    """Whether this build of torch can multiply, and lay out weights, by oneDNN's own calls."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
    )


def multiply_by_onednn(x: torch.Tensor, weight: torch.Tensor, gelu: bool = False) -> torch.Tensor:
    """Return x @ weight.T, (n, k) and (m, k) to (n, m); with `gelu` the GELU (tanh form) of that.

    May only be called where `has_onednn`. Has no gradient.
    """
    name, algorithm = ("gelu", "tanh") if gelu else ("none", "")
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, name, [], algorithm)
    return result


def lay_out_for_onednn(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight in oneDNN's own layout, which only `multiply_by_onednn` can read.

    May only be called where `has_onednn`.
    """
    result: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return result


def softmax_backward(grad: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return the gradient of float32 scores, from that of their softmax over the last dimension."""
    operator: Any = getattr(torch.ops.aten, "_softmax_backward_data", None)
    if operator is not None:
        result: torch.Tensor = operator(grad, probabilities, -1, torch.float32)
        return result
    weighted = grad * probabilities
    return weighted - probabilities * weighted.sum(-1, keepdim=True)


def gelu_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the gradient of x, from that of its GELU in the tanh form."""
    operator: Any = getattr(torch.ops.aten, "gelu_backward", None)
    if operator is not None:
        result: torch.Tensor = operator(grad, x, approximate="tanh")
        return result
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(F.gelu(leaf, approximate="tanh"), leaf, grad)
    return found

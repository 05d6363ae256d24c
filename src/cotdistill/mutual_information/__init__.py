"""Mutual information: the term of Chen et al. 2024 in the two readings that exist, and what measures it.

With a variational q(v|z), I(Z;V) >= H(V) + E[log q(v|z)] (Barber and Agakov 2003): maximising the
bound is minimising a cross-entropy between the two tasks' outputs. `released` is what the published
code computes, `paper` the bound as derived; without both, nobody can tell the method from its bugs.
`estimators` names what estimates I(Z;V) from samples, `measure` gives it a student's representations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def released(label: torch.Tensor, rationale: torch.Tensor) -> torch.Tensor:
    """The term as the published code computes it, from both tasks' pooled probabilities.

    label, rationale: (B, V), each token's largest probability over the positions, padding included.
    Returns a scalar: the mean over examples of `-sum_v p_v log_softmax(q)_v`. So q, already a probability,
    passes a second softmax, p does not sum to 1, and the gradient reaches the rationale task only.
    """
    return -(label.detach() * rationale.log_softmax(-1)).sum(-1).mean()


def paper(label: torch.Tensor, rationale: torch.Tensor, stop_gradient: bool = True) -> torch.Tensor:
    """The term as the paper derives it, from both tasks' pooled probabilities.

    label, rationale: (B, V), pooled over the real positions. Returns a scalar: the mean over examples of
    `-sum_v p_v log q_v` with p and q normalised to sum to 1. `stop_gradient` keeps the gradient from the
    label task.
    """
    import torch

    if stop_gradient:
        label = label.detach()
    p = label / label.sum(-1, keepdim=True)
    q = rationale / rationale.sum(-1, keepdim=True)
    # the smallest normal number stands for a probability that underflowed: its logarithm stays finite
    return -(p * q.clamp_min(torch.finfo(q.dtype).tiny).log()).sum(-1).mean()

"""Mutual information: the term of Chen et al. 2024 in the two readings that exist, and what measures it.

With a variational q(v|z), I(Z;V) >= H(V) + E[log q(v|z)] (Barber and Agakov 2003): maximising the
bound is minimising a cross-entropy between the two tasks' outputs. `released` is what the published
code computes, `paper` the bound as derived; without both, nobody can tell the method from its bugs.
`estimators` names what estimates I(Z;V) from samples, `measure` gives it a student's representations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cotdistill.mutual_information.pooling import distribution, probabilities

if TYPE_CHECKING:
    import torch


def released(label_logits: torch.Tensor, rationale_logits: torch.Tensor) -> torch.Tensor:
    """The term as the published code computes it.

    label_logits: (B, Ty, V); rationale_logits: (B, Tr, V). Returns a scalar: the mean over examples
    of `-sum_v p_v log_softmax(q)_v`, where p and q are the maxima over positions, padding included,
    of each task's softmax. So q, already a probability, passes a second softmax, p does not sum to 1,
    and the gradient reaches the rationale logits only.
    """
    p = probabilities(label_logits.detach()).amax(1)
    q = probabilities(rationale_logits).amax(1)
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
    import torch

    if stop_gradient:
        label_logits = label_logits.detach()
    p = distribution(label_logits, label_mask, pooling)
    q = distribution(rationale_logits, rationale_mask, pooling)
    # the smallest normal number stands for a probability that underflowed: its logarithm stays finite
    return -(p * q.clamp_min(torch.finfo(q.dtype).tiny).log()).sum(-1).mean()

"""The mutual-information term of Chen et al. 2024 (arXiv 2403.03348), in the two readings that exist.

With a variational q(v|z), I(Z;V) >= H(V) + E[log q(v|z)] (Barber and Agakov 2003): maximising the
bound is minimising a cross-entropy between the two tasks' outputs. `released` is what the published
code computes, `paper` the bound as derived; both are needed to tell the method from its implementation.

`released` and `paper` take logits and are the reference to check against the paper. Training pools each
task's probabilities by itself, without holding all logits, and gives them to `released_from_pooled` and
`paper_from_pooled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cotdistill.mutual_information.pooling import pool

if TYPE_CHECKING:
    import torch


def released(label_logits: torch.Tensor, rationale_logits: torch.Tensor) -> torch.Tensor:
    """Return the term as the published code computes it, a scalar in nats.

    label_logits, rationale_logits: (B, T, V), each with its own T. Every position counts, padding included.
    See `released_from_pooled` for the formula.
    """
    return released_from_pooled(pool(label_logits, None, "max"), pool(rationale_logits, None, "max"))


def paper(
    label_logits: torch.Tensor, rationale_logits: torch.Tensor, label_mask: torch.Tensor,
    rationale_mask: torch.Tensor, pooling: Literal["max", "mean"] = "max", stop_gradient: bool = True,
) -> torch.Tensor:  # fmt: skip
    """Return the term as the paper derives it, a scalar in nats.

    label_logits, rationale_logits: (B, T, V), each with its own T. label_mask, rationale_mask: (B, T), true
    where a target token is real. pooling: how the distributions of an example's positions become one.
    stop_gradient: no gradient reaches the label task. See `paper_from_pooled` for the formula. Raises
    ValueError when an example has no real position.
    """
    label = pool(label_logits, label_mask, pooling)
    return paper_from_pooled(label, pool(rationale_logits, rationale_mask, pooling), stop_gradient)


def released_from_pooled(label: torch.Tensor, rationale: torch.Tensor) -> torch.Tensor:
    """Return the term of the published code, from both tasks' pooled probabilities.

    label, rationale: (B, V), each token's largest probability over the positions, padding included.
    The result is the mean over examples of `-sum_v p_v log_softmax(q)_v`: q, already a probability, passes
    a second softmax, p does not sum to 1, and the gradient reaches the rationale task only.
    """
    return -(label.detach() * rationale.log_softmax(-1)).sum(-1).mean()


def paper_from_pooled(
    label: torch.Tensor, rationale: torch.Tensor, stop_gradient: bool = True
) -> torch.Tensor:
    """Return the term of the paper, from both tasks' pooled probabilities.

    label, rationale: (B, V), pooled over the real positions. The result is the mean over examples of
    `-sum_v p_v log q_v` with p and q normalised to sum to 1. `stop_gradient` keeps the gradient from the
    label task.
    """
    import torch

    if stop_gradient:
        label = label.detach()
    p = label / label.sum(-1, keepdim=True)
    q = rationale / rationale.sum(-1, keepdim=True)
    # a probability that underflowed counts as the smallest normal number: its logarithm is finite
    return -(p * q.clamp_min(torch.finfo(q.dtype).tiny).log()).sum(-1).mean()

"""The output layer on a chunk of examples: what a method's terms read, and the gradient by hand.

Autograd covers the terms only, from what they read (one cross-entropy, one pooled row an example); `backward`
computes the rest, so that a chunk's logits can be freed before the next chunk. One buffer of n x V numbers is
used for all: it holds first the logits, then their exponentials, and at last the logits' gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from cotdistill.data.batches import IGNORED
from cotdistill.students.interface import Needs, TaskOutput
from cotdistill.students.packed.output import OutputLayer, exponentiate


class OutputChunk:
    """The numbers of one task on a chunk of examples, and their gradient.

    states: (n, d_model), the examples' decoder states end to end; labels: (n,), IGNORED where there is no
    target; lengths: positions of each example; tokens: real target tokens of the task's whole batch; share:
    the chunk's part of the batch's examples.
    """

    def __init__(
        self, layer: OutputLayer, needs: Needs, states: torch.Tensor, labels: torch.Tensor,
        lengths: Sequence[int], tokens: int, share: float,
    ) -> None:  # fmt: skip
        self.layer, self.needs, self.states, self.lengths = layer, needs, states, lengths
        self.real = labels != IGNORED
        self.targets = labels.clamp(min=0)[:, None]
        self.tokens = tokens
        logits = layer.compute_logits(states)
        self.logits = _as_leaf(self._pad(logits)) if needs.logits else None
        target_logits = logits.gather(1, self.targets)
        highest, self.sums = exponentiate(logits)
        self.exponentials = logits
        """(n, V): the buffer, now exp(logit - highest); divided by `sums` they are probabilities"""
        log_likelihoods = (target_logits - highest - self.sums.log())[:, 0].masked_fill(~self.real, 0.0)
        self.cross_entropy = _as_leaf(-log_likelihoods.sum() / tokens)
        self.pooled = _as_leaf(self._pool()) if needs.pooling else None
        self.hidden = _as_leaf(self._pad(states)) if needs.hidden else None
        mask = self._pad(self.real[:, None])[..., 0]
        self.output = TaskOutput(self.cross_entropy, share, mask, self.pooled, self.hidden, self.logits)

    def _examples(self) -> Iterator[slice]:
        start = 0
        for length in self.lengths:
            yield slice(start, start + length)
            start += length

    def _pad(self, packed: torch.Tensor) -> torch.Tensor:
        """Return packed: (n, w) as (b, T, w), with zeros behind each example."""
        return torch.nn.utils.rnn.pad_sequence([packed[own] for own in self._examples()], batch_first=True)

    def _unpad(self, padded: torch.Tensor) -> torch.Tensor:
        return torch.cat([row[:length] for row, length in zip(padded, self.lengths, strict=True)])

    def _pool(self) -> torch.Tensor:
        """Return (b, V), each example's probabilities pooled over its positions."""
        rows = []
        for example in self._examples():
            probabilities = self.exponentials[example] / self.sums[example]
            rows.append(probabilities.amax(0) if self.needs.pooling == "max" else probabilities.mean(0))
        return torch.stack(rows)

    def backward(self) -> torch.Tensor:
        """Return the states' gradient (n, d_model), from the gradients of what the terms read.

        Also adds to the output layer's gradient. Can be called once: the buffer becomes the gradient.
        """
        scale = self.cross_entropy.grad if self.cross_entropy.grad is not None else torch.tensor(0.0)
        weights = (self.real * (scale / self.tokens).to(self.real.device))[:, None]
        weights = weights.to(self.exponentials.dtype)  # of each position's cross-entropy in the loss
        # the gradient of a cross-entropy is probability minus one at the target; first the probabilities
        if self.pooled is not None and self.pooled.grad is not None:
            gradient = self._differentiate_pooling(self.pooled.grad, weights)
        else:
            gradient = self.exponentials.mul_(weights / self.sums)
        # each position has one target: no sum whose order could differ on a GPU
        gradient[torch.arange(len(gradient), device=gradient.device), self.targets[:, 0]] -= weights[:, 0]
        if self.logits is not None and self.logits.grad is not None:
            gradient += self._unpad(self.logits.grad)
        into = self.layer.backward(self.states, gradient)
        if self.hidden is not None and self.hidden.grad is not None:
            into += self._unpad(self.hidden.grad)
        return into

    def _differentiate_pooling(self, given: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the logits' gradient (n, V), from which the targets' part is still to be subtracted.

        given: (b, V), the gradient of the pooled probabilities; weights: (n, 1), see `backward`.
        """
        assert self.pooled is not None
        for example, pooled, gradient in zip(self._examples(), self.pooled.detach(), given, strict=True):
            probabilities = self.exponentials[example].div_(self.sums[example])
            if self.needs.pooling == "max":
                # an entry's gradient goes to the positions that hold its maximum
                weighted = (probabilities == pooled) * (gradient * pooled)
            else:
                weighted = probabilities * (gradient / len(probabilities))
            probabilities.mul_(weights[example] - weighted.sum(1, keepdim=True)).add_(weighted)
        return self.exponentials


def _as_leaf(value: torch.Tensor) -> torch.Tensor:
    return value.detach().requires_grad_()

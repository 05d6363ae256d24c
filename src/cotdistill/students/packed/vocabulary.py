"""The output layer in chunks: cross-entropy and pooled distributions, never all positions' logits at once.

The graph is cut at what a method's terms read (one cross-entropy, one pooled row an example), so that a
chunk's logits live only until their gradient is in the states and in the output layer's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from cotdistill.data.batches import IGNORED
from cotdistill.methods import Needs, TaskOutput
from cotdistill.students.packed.output import OutputLayer, exponentials


class Chunk:
    """One task's part of a chunk of examples: what a method's terms read of it, and the way back.

    states: (n, d_model), the examples' decoder states end to end; labels: (n,), -100 where there is no
    target; lengths: positions of each example; tokens: real target tokens of the task's whole batch;
    share: the chunk's part of the batch's examples.
    """

    def __init__(
        self, layer: OutputLayer, needs: Needs, states: torch.Tensor, labels: torch.Tensor,
        lengths: Sequence[int], tokens: int, share: float,
    ) -> None:  # fmt: skip
        self.layer, self.needs, self.states, self.lengths = layer, needs, states, lengths
        self.real = labels != IGNORED
        self.targets = labels.clamp(min=0)[:, None]
        self.tokens = tokens
        logits = layer.logits(states)
        self.logits = _leaf(self._padded(logits)) if needs.logits else None
        chosen = logits.gather(1, self.targets)
        highest, self.sums = exponentials(logits)
        self.probabilities = logits  # once divided by their sums, an example at a time where it is needed
        chosen = (chosen - highest - self.sums.log())[:, 0].masked_fill(~self.real, 0.0)
        self.cross_entropy = _leaf(-chosen.sum() / tokens)
        self.pooled = _leaf(self._pooled()) if needs.pooling else None
        self.hidden = _leaf(self._padded(states)) if needs.hidden else None
        mask = self._padded(self.real[:, None])[..., 0]
        self.output = TaskOutput(self.cross_entropy, share, mask, self.pooled, self.hidden, self.logits)

    def _examples(self) -> Iterator[slice]:
        start = 0
        for length in self.lengths:
            yield slice(start, start + length)
            start += length

    def _padded(self, packed: torch.Tensor) -> torch.Tensor:
        """(n, w) to (b, T, w), zeros behind each example."""
        return torch.nn.utils.rnn.pad_sequence([packed[own] for own in self._examples()], batch_first=True)

    def _unpadded(self, padded: torch.Tensor) -> torch.Tensor:
        return torch.cat([row[:length] for row, length in zip(padded, self.lengths, strict=True)])

    def _pooled(self) -> torch.Tensor:
        own = (self.probabilities[example] / self.sums[example] for example in self._examples())
        return torch.stack([each.amax(0) if self.needs.pooling == "max" else each.mean(0) for each in own])

    def backward(self) -> torch.Tensor:
        """The states' gradient (n, d_model), from those that the terms left in what they read."""
        probabilities = self.probabilities
        scale = self.cross_entropy.grad if self.cross_entropy.grad is not None else torch.tensor(0.0)
        nll = (self.real * (scale / self.tokens).to(self.real.device))[:, None].to(probabilities.dtype)
        if self.pooled is not None and self.pooled.grad is not None:
            grad = self._through_pooling(self.pooled.grad, nll)
        else:
            grad = probabilities.mul_(nll / self.sums)
        # each position has one target: no sum whose order could differ on a GPU
        grad[torch.arange(len(grad), device=grad.device), self.targets[:, 0]] -= nll[:, 0]
        if self.logits is not None and self.logits.grad is not None:
            grad += self._unpadded(self.logits.grad)
        into = self.layer.backward(self.states, grad)
        if self.hidden is not None and self.hidden.grad is not None:
            into += self._unpadded(self.hidden.grad)
        return into

    def _through_pooling(self, grad: torch.Tensor, nll: torch.Tensor) -> torch.Tensor:
        """The logits' gradient but for the targets': of probabilities that are pooled, then of a softmax."""
        assert self.pooled is not None
        for example, pooled, given in zip(self._examples(), self.pooled.detach(), grad, strict=True):
            own = self.probabilities[example].div_(self.sums[example])
            if self.needs.pooling == "max":
                # an entry's gradient goes to the positions that hold its maximum
                weighted = (own == pooled) * (given * pooled)
            else:
                weighted = own * (given / len(own))
            own.mul_(nll[example] - weighted.sum(1, keepdim=True)).add_(weighted)
        return self.probabilities


def _leaf(value: torch.Tensor) -> torch.Tensor:
    return value.detach().requires_grad_()

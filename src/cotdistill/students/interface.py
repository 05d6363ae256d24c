"""What training and inference ask of a student, whichever engine computes it.

An engine is a folder with three modules, each for one of the three uses: `learning` (gradients of a batch's
loss), `writing` (greedy generation) and `scoring` (how likely given targets are). `students.engines` makes
them. Nothing here, and nothing that uses it, knows how an engine lays its tokens out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from cotdistill.data.batches import Batch


@dataclass(frozen=True)
class Needs:
    """What a method's terms read beside each task's cross-entropy. What is not needed is not computed."""

    hidden: bool = False
    """the decoder's states"""
    logits: bool = False
    """all positions' logits: memory for B x T x V numbers, and as many gradients"""
    pooling: Literal["max", "mean"] | None = None
    """the probabilities pooled over positions"""
    padding: bool = False
    """positions include padding up to the longest target of the batch, as in a plain padded pass"""


@dataclass(frozen=True)
class TaskOutput:
    """What one task's pass gave on B examples of a batch.

    cross_entropy: scalar; summed over the parts of a batch it is the batch's mean over target tokens.
    share: these examples' part of the batch's, for terms that are means over examples.
    mask: (B, T), true where a target token is real.
    The rest is float32 and there where the method `needs` it: pooled: (B, V), each token's largest (or mean)
    probability over an example's positions; hidden: (B, T, d_model), the decoder's last states before
    the output layer; logits: (B, T, V), 0 where there is no position.
    """

    cross_entropy: torch.Tensor
    share: float
    mask: torch.Tensor
    pooled: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    logits: torch.Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One named part of the loss: the loss is the sum of `weight * value`. A weight of 0 is only logged."""

    value: torch.Tensor
    weight: float


def total(terms: Mapping[str, Term]) -> torch.Tensor:
    """Return the weighted sum. A term of weight 0 is left out, so that its value cannot change the rest."""
    weighted = [term.weight * term.value for term in terms.values() if term.weight != 0]
    loss = weighted[0]
    for value in weighted[1:]:
        loss = loss + value
    return loss


class Objective(Protocol):
    """What is minimised: a method, as an engine sees it."""

    @property
    def needs(self) -> Needs:
        """What `terms` reads of each task's pass."""

    @property
    def contrastive(self) -> frozenset[str]:
        """Terms that compare the examples of a call with each other, which are then not to be cut apart."""

    def terms(self, outputs: Mapping[str, TaskOutput]) -> dict[str, Term]:
        """Return the loss terms by name, from the outputs by task name."""


@dataclass(frozen=True)
class Whole:
    """The batch of which a call's examples are a part."""

    examples: int
    tokens: Mapping[str, int]
    """real target tokens by task"""


class Learner(Protocol):
    """Computes gradients of a student and of what an objective learns beside it."""

    def add_gradients(
        self, batches: Mapping[str, Batch], objective: Objective, seed: int, whole: Whole | None = None
    ) -> dict[str, torch.Tensor]:
        """Add the loss's gradients to the parameters' `grad`; return `total` and the terms by name, scalars.

        batches: the same examples for each task, by its name. seed: of dropout; the global random state stays
        as it was. whole: the batch that these examples are a part of, by default they are all of it. Summed
        over the parts of a batch (in all processes), terms and gradients are those of the whole batch.
        """

    def observe(self, batch: Batch, needs: Needs) -> Iterator[TaskOutput]:
        """Yield what one task's pass gives a method's terms, some examples at a time, in their order.

        Without gradients and without dropout.
        """


class Writer(Protocol):
    """Generates greedily with a student whose weights stay as they are."""

    def read(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Return what the student read of R inputs (token ids, with end token), for `write` and a Scorer."""

    def write(self, read: Any, longest: int, end: int) -> list[tuple[list[int], float]]:
        """Return, for each input, the most probable tokens and the sum of their log-probabilities.

        Tokens are chosen one at a time, up to the token `end` (included) or `longest` of them.
        """


class Scorer(Protocol):
    """Tells how likely given targets are to a student whose weights stay as they are."""

    def log_likelihoods(self, read: Any, targets: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """Return log p(target | input) in nats, for each target (token ids) of each of the R inputs read."""

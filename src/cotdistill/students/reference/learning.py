"""Gradients of a batch's loss: a padded forward pass for each task, the method's terms, and autograd.

A batch is sorted by length and cut into groups of examples, whose gradients add up to the batch's: so little
is padded, and no more than a group's logits and activations are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from cotdistill.data.batches import IGNORED, Batch
from cotdistill.students.interface import Needs, Objective, TaskOutput, Whole, total
from cotdistill.students.reference.passes import Passes, cut_by_padding


class Learner:
    """Adds a batch's gradients to those of a model; see `students.interface.Learner`."""

    def __init__(self, model: Any, precision: str = "fp32") -> None:
        self.passes = Passes(model, precision)

    def add_gradients(
        self, batches: Mapping[str, Batch], objective: Objective, seed: int, whole: Whole | None = None
    ) -> dict[str, torch.Tensor]:
        """Add the gradients; return the loss and its terms. See `students.interface.Learner`."""
        first = next(iter(batches.values()))
        whole = whole or Whole(len(first), {name: batch.tokens for name, batch in batches.items()})
        lengths = measure(batches, objective.needs)
        order = sorted(range(len(first)), key=lambda row: (-sum(lengths[row]), row))
        # terms that compare examples with each other need them all at once
        most = None if objective.contrastive else self.passes.most_positions
        sums: dict[str, torch.Tensor] = {}
        with self.passes.draw_dropout(seed):
            for group in cut_by_padding([lengths[row] for row in order], most):
                outputs = {
                    name: self._pass_through(batch.take(order[group]), objective.needs, whole, name)
                    for name, batch in batches.items()
                }
                terms = objective.terms(outputs)
                loss = total(terms)
                loss.backward()
                for name, value in [("total", loss), *((name, term.value) for name, term in terms.items())]:
                    sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return sums

    def observe(self, batch: Batch, needs: Needs) -> Iterator[TaskOutput]:
        """Yield what one task's pass gives a method's terms. See `students.interface.Learner`."""
        whole = Whole(len(batch), {"": batch.tokens})
        for group in cut_by_padding(measure({"": batch}, needs), self.passes.most_positions):
            with self.passes.evaluate():
                output = self._pass_through(batch.take(range(len(batch))[group]), needs, whole, "")
            yield output

    def _pass_through(self, batch: Batch, needs: Needs, whole: Whole, task: str) -> TaskOutput:
        """Return what the terms read of a group of examples, a part of a task's `whole` batch."""
        ids, mask, labels = (part.to(self.passes.device) for part in batch.pad(self.passes.pad_token))
        if not needs.padding:
            labels = labels[:, : max(map(len, batch.targets))]
        found = self.passes.compute(
            labels, input_ids=ids, attention_mask=mask, output_hidden_states=needs.hidden
        )
        logits = found.logits.float()
        real = labels != IGNORED
        flat = logits.flatten(0, 1), labels.flatten()
        cross_entropy = F.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum") / whole.tokens[task]
        counted = (real | needs.padding)[..., None]
        pooled = None
        if needs.pooling:
            each = logits.softmax(-1) * counted
            pooled = each.amax(1) if needs.pooling == "max" else each.sum(1) / counted.sum(1)
        hidden = found.decoder_hidden_states[-1].float() * counted if needs.hidden else None
        return TaskOutput(
            cross_entropy, len(batch) / whole.examples, real, pooled, hidden,
            logits * counted if needs.logits else None,
        )  # fmt: skip


def measure(batches: Mapping[str, Batch], needs: Needs) -> list[tuple[int, ...]]:
    """Return for each example the lengths of its sequences: the inputs and targets of all tasks."""
    columns: list[list[int]] = []
    for batch in batches.values():
        targets = [batch.longest_target if needs.padding else len(row) for row in batch.targets]
        columns += [[len(row) for row in batch.inputs], targets]
    return list(zip(*columns, strict=True))

"""Gradients of a batch's loss, without work on padding.

All tasks go through the student in one pass on packed tokens (`passes`). A batch is cut into pieces of
examples of similar length, which bounds the memory of a pass, and the output layer is computed for one chunk
of examples after the other (`output_chunk`). Terms and gradients are those of one plain padded pass a task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from cotdistill.data.batches import IGNORED, Batch
from cotdistill.students.interface import Needs, Objective, TaskOutput, Whole, total
from cotdistill.students.packed import passes
from cotdistill.students.packed.kernels import Dropout
from cotdistill.students.packed.layout import Layout, size_groups
from cotdistill.students.packed.output import OutputLayer
from cotdistill.students.packed.output_chunk import OutputChunk

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

MEMORY = 2**31
"""bytes of activations, about, that a pass through the student keeps for its gradient"""
CHUNK = 2**24
"""logits of one chunk, 64 MB: what the output layer holds at once"""


class Learner:
    """Adds the gradients of a batch to those of a T5; see `students.interface.Learner`."""

    def __init__(self, model: T5ForConditionalGeneration, precision: str = "fp32") -> None:
        self.model, self.precision = model, precision
        self.device = next(model.parameters()).device
        config: Any = model.config
        layer = 10 * config.d_model + 3 * config.d_ff  # float32 numbers of a token, of 4 bytes
        self.most_tokens = max(1, MEMORY // (4 * layer * config.num_layers))
        """tokens of all tasks, inputs and targets, that are passed through the student at once"""

    def add_gradients(
        self, batches: Mapping[str, Batch], objective: Objective, seed: int, whole: Whole | None = None
    ) -> dict[str, torch.Tensor]:
        """Add the gradients; return the loss and its terms. See `students.interface.Learner`."""
        first = next(iter(batches.values()))
        whole = whole or Whole(len(first), {name: batch.tokens for name, batch in batches.items()})
        rate = self.model.config.dropout_rate if self.model.training else 0.0
        dropout = Dropout(float(rate), seed, self.device)
        layer = OutputLayer(self.model, self.precision)
        sums: dict[str, torch.Tensor] = {}
        for rows in cut_into_pieces(batches, objective, self.most_tokens):
            parts = {name: batch.take(rows) for name, batch in batches.items()}
            piece = Piece(parts, objective.needs, self.model, self.device)
            states = passes.compute_states(self.model, piece.sequences, dropout, self.precision)
            into = torch.zeros_like(states)
            limit = None if objective.contrastive else CHUNK
            for chunk in piece.cut_into_chunks(layer.weight.shape[0], limit):
                terms = self._add_chunk(layer, piece, chunk, objective, states.detach(), into, whole)
                for name, value in terms:
                    sums[name] = sums[name] + value if name in sums else value
            states.backward(into)
        return sums

    def _add_chunk(
        self, layer: OutputLayer, piece: Piece, rows: range, objective: Objective, states: torch.Tensor,
        into: torch.Tensor, whole: Whole,
    ) -> list[tuple[str, torch.Tensor]]:  # fmt: skip
        """Compute the terms of some examples of a piece; write the gradient of their states to `into`."""
        chunks, places = {}, {}
        for task in piece.tasks:
            place, lengths = piece.find(task, rows)
            places[task] = place
            chunks[task] = OutputChunk(
                layer, objective.needs, states[place], piece.labels[place], lengths, whole.tokens[task],
                len(rows) / whole.examples,
            )  # fmt: skip
        terms = objective.terms({name: chunk.output for name, chunk in chunks.items()})
        loss = total(terms)
        loss.backward()
        for name, chunk in chunks.items():
            into[places[name]] = chunk.backward()
        return [("total", loss.detach()), *((name, term.value.detach()) for name, term in terms.items())]

    @torch.no_grad()
    def observe(self, batch: Batch, needs: Needs) -> Iterator[TaskOutput]:
        """Yield what one task's pass gives a method's terms. See `students.interface.Learner`."""
        piece = Piece({"task": batch}, needs, self.model, self.device)
        no_dropout = Dropout(0.0, 0, self.device)
        states = passes.compute_states(self.model, piece.sequences, no_dropout, self.precision)
        layer = OutputLayer(self.model, self.precision)
        for rows in piece.cut_into_chunks(layer.weight.shape[0], CHUNK):
            place, lengths = piece.find("task", rows)
            share = len(rows) / len(batch)
            yield OutputChunk(
                layer, needs, states[place], piece.labels[place], lengths, batch.tokens, share
            ).output


def cut_into_pieces(batches: Mapping[str, Batch], objective: Objective, most_tokens: int) -> list[list[int]]:
    """Return the batch's rows by length, cut so that a piece holds at most `most_tokens` tokens.

    A single longer row is a piece of its own. All rows are in one piece where a term compares examples with
    each other.
    """
    sizes = [
        sum(len(batch.inputs[row]) + len(batch.targets[row]) for batch in batches.values())
        for row in range(len(next(iter(batches.values()))))
    ]
    rows = sorted(range(len(sizes)), key=lambda row: (-sizes[row], row))
    if objective.contrastive:
        return [rows]
    found: list[list[int]] = [[]]
    held = 0
    for row in rows:
        if found[-1] and held + sizes[row] > most_tokens:
            found.append([])
            held = 0
        found[-1].append(row)
        held += sizes[row]
    return found


class Piece:
    """Examples of a batch laid out for one packed pass: all examples of the first task, then of the next."""

    def __init__(
        self, batches: Mapping[str, Batch], needs: Needs, model: T5ForConditionalGeneration,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.tasks = list(batches)
        self.count = len(next(iter(batches.values())))
        inputs = [row for batch in batches.values() for row in batch.inputs]
        targets = [
            # what the published code pools holds padding, to the longest target of the batch
            _extend(row, batch.longest_target) if needs.padding else row
            for batch in batches.values()
            for row in batch.targets
        ]
        self.lengths = [len(row) for row in targets]
        """decoder positions of each sequence"""
        self._starts = [0, *accumulate(self.lengths)]
        self.labels = torch.cat(targets).to(device)
        """(M,) the token that each decoder position is to predict; IGNORED where it is padding"""
        config: Any = model.config
        before = [_shift(row, config.decoder_start_token_id, config.pad_token_id) for row in targets]
        groups = size_groups(self.count) * len(self.tasks)
        self.sequences = passes.Sequences(
            torch.cat(inputs).to(device), torch.cat(before).to(device),
            Layout([len(row) for row in inputs], groups, device), Layout(self.lengths, groups, device),
        )  # fmt: skip

    def find(self, task: str, rows: range) -> tuple[slice, list[int]]:
        """Return where the decoder's positions of these rows of a task are, and how many each row has."""
        first = self.tasks.index(task) * self.count
        sequences = slice(first + rows.start, first + rows.stop)
        return slice(self._starts[sequences.start], self._starts[sequences.stop]), self.lengths[sequences]

    def cut_into_chunks(self, vocabulary: int, limit: int | None) -> Iterator[range]:
        """Yield ranges of the piece's rows whose logits are about `limit` numbers at most, in any task.

        limit: None for all rows in one range.
        """
        by_task = [
            self.lengths[number * self.count : (number + 1) * self.count] for number in range(len(self.tasks))
        ]
        start, held = 0, 0
        for row, lengths in enumerate(zip(*by_task, strict=True)):
            size = vocabulary * max(lengths)
            if limit is not None and row > start and held + size > limit:
                yield range(start, row)
                start, held = row, 0
            held += size
        yield range(start, self.count)


def _extend(target: torch.Tensor, length: int) -> torch.Tensor:
    """Pad a target with IGNORED to `length` positions."""
    return torch.nn.functional.pad(target, (0, length - len(target)), value=IGNORED)


def _shift(target: torch.Tensor, start_token: int, pad_token: int) -> torch.Tensor:
    """Return what the decoder reads to predict `target`: the start token, then `target` but its last."""
    shifted = torch.cat([torch.tensor([start_token], dtype=target.dtype), target[:-1]])
    return shifted.masked_fill(shifted == IGNORED, pad_token)

"""One optimiser step's gradients, without work on padding.

Both tasks go through the student in one pass on packed tokens (`students.packed`), a batch is cut into
pieces of similar lengths that bound the memory of the passes, and the output layer is taken in chunks
(`training.vocabulary`). The terms and gradients are those of one plain padded pass a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import torch

from cotdistill.data.batches import IGNORED, Batch
from cotdistill.methods import Method, Needs, TaskOutput, Term
from cotdistill.students.packed import passes as packed
from cotdistill.students.packed.kernels import Dropout
from cotdistill.students.packed.layout import Layout, groups_of
from cotdistill.students.packed.output import OutputLayer
from cotdistill.students.packed.vocabulary import Chunk

MEMORY = 2**31
"""bytes of activations, about, that a pass through the student keeps for its gradient"""
CHUNK = 2**24
"""logits of one chunk, 64 MB: what the output layer holds at once"""


class Step:
    """Adds a batch's gradients to those of a student and of its method's own modules."""

    def __init__(self, model: torch.nn.Module, method: Method, precision: str = "fp32") -> None:
        self.model, self.method, self.precision = model, method, precision
        self.device = next(model.parameters()).device
        config: Any = model.config
        layer = 10 * config.d_model + 3 * config.d_ff  # float32 numbers of a token, of 4 bytes
        self.most = max(1, MEMORY // (4 * layer * config.num_layers))
        """tokens of all tasks, inputs and targets, that are passed through the student at once"""

    def gradients(
        self, batches: Mapping[str, Batch], seed: int, tokens: Mapping[str, int] | None = None,
        size: int | None = None,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        """Scalars of the loss, `total` and its terms by name.

        batches: the tensors of each task; seed: of dropout; tokens and size: real target tokens by task,
        and examples, of the whole batch, where these are a part of it. Summed over the parts (of all
        processes), terms and gradients are those of the whole batch.
        """
        tokens = tokens or {name: batch.tokens for name, batch in batches.items()}
        rate = self.model.config.dropout_rate if self.model.training else 0.0  # type: ignore[union-attr]
        dropout = Dropout(float(rate), seed, self.device)  # type: ignore[arg-type]
        layer = OutputLayer(self.model, self.precision)
        sums: dict[str, torch.Tensor] = {}
        for rows in pieces(batches, self.method, self.most):
            piece = _Piece(batches, rows, self.method.needs, self.device, self.model._shift_right)  # type: ignore[arg-type]
            states = packed.decoder_states(self.model, piece.sequences, dropout, self.precision)
            into = torch.zeros_like(states)
            for chunk in piece.chunks(layer.weight.shape[0], whole=bool(self.method.contrastive)):
                share = len(chunk) / (size or len(next(iter(batches.values())).labels))
                for name, value in self._chunk(layer, piece, chunk, states.detach(), into, tokens, share):
                    sums[name] = sums[name] + value if name in sums else value
            states.backward(into)
        return sums

    def _chunk(
        self, layer: OutputLayer, piece: _Piece, rows: range, states: torch.Tensor, into: torch.Tensor,
        tokens: Mapping[str, int], share: float,
    ) -> list[tuple[str, torch.Tensor]]:  # fmt: skip
        """The terms of some examples of a piece; writes the gradient of their states to `into`."""
        chunks, places = {}, {}
        for task in self.method.tasks:
            place, lengths = piece.place(task.name, rows)
            places[task.name] = place
            chunks[task.name] = Chunk(
                layer, self.method.needs, states[place], piece.labels[place], lengths,
                tokens[task.name], share,
            )  # fmt: skip
        terms = self.method.terms({name: chunk.output for name, chunk in chunks.items()})
        loss = total(terms)
        loss.backward()
        for name, chunk in chunks.items():
            into[places[name]] = chunk.backward()
        return [("total", loss.detach()), *((name, term.value.detach()) for name, term in terms.items())]


@torch.no_grad()
def observed(
    model: torch.nn.Module, batch: Batch, needs: Needs, precision: str = "fp32"
) -> Iterator[TaskOutput]:
    """What one task's pass gives a method's terms, some examples at a time, in the batch's order."""
    device = next(model.parameters()).device
    rows = list(range(len(batch.labels)))
    piece = _Piece({"task": batch}, rows, needs, device, model._shift_right)  # type: ignore[arg-type]
    states = packed.decoder_states(model, piece.sequences, Dropout(0.0, 0, device), precision)
    layer = OutputLayer(model, precision)
    for chunk in piece.chunks(layer.weight.shape[0], whole=False):
        place, lengths = piece.place("task", chunk)
        share = len(chunk) / len(rows)
        yield Chunk(layer, needs, states[place], piece.labels[place], lengths, batch.tokens, share).output


def total(terms: Mapping[str, Term]) -> torch.Tensor:
    """The weighted sum. A term of weight 0 stays out, so that its value cannot change a bit of the rest."""
    weighted = [term.weight * term.value for term in terms.values() if term.weight != 0]
    loss = weighted[0]
    for value in weighted[1:]:
        loss = loss + value
    return loss


def pieces(batches: Mapping[str, Batch], method: Method, most: int) -> list[list[int]]:
    """The batch's rows by length, cut where the tokens of a piece would be more than `most`.

    All in one where a term compares examples with each other.
    """
    sizes = [
        sum(values) for values in zip(*(
            (batch.attention_mask.sum(1) + (batch.labels != IGNORED).sum(1)).tolist()
            for batch in batches.values()
        ), strict=True)
    ]
    rows = sorted(range(len(sizes)), key=lambda row: (-sizes[row], row))
    if method.contrastive:
        return [rows]
    found: list[list[int]] = [[]]
    held = 0
    for row in rows:
        if found[-1] and held + sizes[row] > most:
            found.append([])
            held = 0
        found[-1].append(row)
        held += sizes[row]
    return found


class _Piece:
    """Examples of a batch in one packed pass: all rows of the first task, then all of the next."""

    def __init__(
        self, batches: Mapping[str, Batch], rows: list[int], needs: Needs, device: torch.device,
        shifted: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:  # fmt: skip
        """shifted: what the decoder reads, of labels (B, T)."""
        self.rows, self.names = rows, list(batches)
        inputs, targets, before = [], [], []
        input_lengths, self.lengths = [], []
        for batch in batches.values():
            ids, mask, labels = (each[rows] for each in (batch.input_ids, batch.attention_mask, batch.labels))
            real = mask.bool()
            # what the published code pools holds padding, to the longest of the batch
            kept = torch.ones_like(labels, dtype=torch.bool) if needs.padding else labels != IGNORED
            inputs.append(ids[real])
            targets.append(labels[kept])
            before.append(shifted(labels)[kept])
            input_lengths += real.sum(1).tolist()
            self.lengths += kept.sum(1).tolist()
        groups = groups_of(len(rows)) * len(batches)
        self.labels = torch.cat(targets).to(device)
        self.sequences = packed.Sequences(
            torch.cat(inputs).to(device), torch.cat(before).to(device),
            Layout(input_lengths, groups, device), Layout(self.lengths, groups, device),
        )
        self._starts = [0, *accumulate(self.lengths)]

    def place(self, task: str, rows: range) -> tuple[slice, list[int]]:
        """Where the decoder's states of these rows of the piece are, and how many of each."""
        first = self.names.index(task) * len(self.rows)
        own = slice(first + rows.start, first + rows.stop)
        return slice(self._starts[own.start], self._starts[own.stop]), self.lengths[own]

    def chunks(self, vocabulary: int, whole: bool) -> Iterator[range]:
        """Ranges of the piece's rows with about CHUNK logits each, of the task that has the most."""
        start, held = 0, 0
        count = len(self.rows)
        for row in range(count):
            size = vocabulary * max(self.lengths[row::count])
            if not whole and row > start and held + size > CHUNK:
                yield range(start, row)
                start, held = row, 0
            held += size
        yield range(start, count)

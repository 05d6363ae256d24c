"""Likelihoods of given targets, each in a teacher-forced pass that reads its input's encoding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from cotdistill.data.batches import IGNORED
from cotdistill.students.reference.passes import cut_by_padding
from cotdistill.students.reference.writing import Reading, Writer


class Scorer:
    """Scores targets for inputs that a Writer has read; see `students.interface.Scorer`."""

    def __init__(self, writer: Writer) -> None:
        self.passes = writer.passes

    def log_likelihoods(self, read: Reading, targets: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """Return log p(target | input); see `students.interface.Scorer`."""
        rows = [row for row, own in enumerate(targets) for _ in own]
        tokens = [torch.tensor(ids) for own in targets for ids in own]
        found: list[float] = []
        lengths = [[len(ids)] for ids in tokens]
        for part in cut_by_padding(lengths, self.passes.most_positions) if rows else []:
            labels = pad_sequence(tokens[part], batch_first=True, padding_value=IGNORED)
            labels = labels.to(self.passes.device)
            with self.passes.evaluate():
                logits = self.passes.compute(labels, **read.take(rows[part])).logits.float()
                logs = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
            found += logs.double().masked_fill(labels == IGNORED, 0.0).sum(1).tolist()
        left = iter(found)
        return [[next(left) for _ in own] for own in targets]

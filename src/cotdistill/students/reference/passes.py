"""A model's forward pass as transformers computes it, on groups of examples that bound its memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from cotdistill.data.batches import IGNORED

MEMORY = {"cpu": 2**31, "cuda": 2**34}
"""bytes, about, that the passes of a group of examples may keep for their gradient: what is kept is less"""


class Passes:
    """A model and how its passes are computed: on its device, in a precision (fp32, or bf16 for products)."""

    def __init__(self, model: Any, precision: str) -> None:
        self.model, self.bf16 = model, precision == "bf16"
        weight = model.get_output_embeddings().weight
        self.device = weight.device
        linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        # of each position a layer's inputs and outputs are kept; and of its logits softmax and gradients
        numbers = sum(each.in_features + each.out_features for each in linear) + 4 * len(weight)
        self.most_positions = MEMORY[self.device.type] // (4 * numbers)
        """positions of inputs and targets, padding included, that a group of examples may have"""
        decoder = model.config.get_text_config(decoder=True)
        start = getattr(model.config, "decoder_start_token_id", None)
        self.start_token: int = decoder.bos_token_id if start is None else start
        self.pad_token: int = decoder.pad_token_id or 0

    def compute(self, labels: torch.Tensor, **inputs: Any) -> Any:
        """Return the model's output, `logits` (B, T, V) among it, for `labels` (B, T) as targets.

        inputs: as the model's `forward` takes them: `attention_mask`, and `input_ids` or `encoder_outputs`.
        """
        before = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=self.start_token)
        before = before.masked_fill(before == IGNORED, self.pad_token)
        with self.autocast():
            return self.model(**inputs, decoder_input_ids=before, use_cache=False)

    def autocast(self) -> torch.autocast:
        """Return the context in which matrix products are in the engine's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @contextlib.contextmanager
    def draw_dropout(self, seed: int) -> Iterator[None]:
        """Make dropout a function of `seed` inside; the global random state is as it was after."""
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            torch.default_generator.manual_seed(seed)
            for gpu in gpus:
                torch.cuda.default_generators[gpu.index].manual_seed(seed)
            yield

    @contextlib.contextmanager
    def evaluate(self) -> Iterator[None]:
        """Compute without dropout and without gradients inside."""
        training = self.model.training
        try:
            with torch.no_grad():
                yield self.model.eval()
        finally:
            self.model.train(training)


def cut_by_padding(lengths: Sequence[Sequence[int]], most: int | None) -> list[slice]:
    """Return slices of rows that take at most `most` positions once padded; one row may take more.

    lengths: of each row's sequences, each of which is padded to the longest in its place. most: None for all
    rows in one slice.
    """
    found: list[slice] = []
    start, padded = 0, [0 for _ in lengths[0]]
    for row, own in enumerate(lengths):
        padded = [max(pair) for pair in zip(padded, own, strict=True)]
        if most is not None and row > start and (row + 1 - start) * sum(padded) > most:
            found.append(slice(start, row))
            start, padded = row, list(own)
    return [*found, slice(start, len(lengths))]

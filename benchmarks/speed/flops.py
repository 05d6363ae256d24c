"""Floating-point operations of T5's matrix products.

With d = d_model, h = num_heads * d_kv, f = d_ff, L layers on each side, S input and T target positions of one
example, a product of (m, k) and (k, n) counted as 2 m k n, one forward pass costs

    encoder   L * (8 S d h  +  4 S^2 h  +  6 S d f)
    decoder   L * (8 T d h  +  4 T^2 h  +  (4 T + 4 S) d h  +  4 T S h  +  6 T d f)
    output    2 T d V

In each line: the four projections of self-attention, its scores and their sum of values; in the decoder the
same of cross-attention, whose keys and values have S positions; then the gated feed-forward layer's three
matrices. A causal mask saves nothing here: T^2 counts what a full product computes. Training costs three
times as much: backward, each product has two, one for either factor. Everything but matrix products (softmax,
norms, dropout, the optimiser, position biases, embeddings looked up) counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def forward(config: Any, inputs: int, targets: int) -> int:
    """FLOPs of one pass over one example with `inputs` and `targets` positions."""
    d, h, f = config.d_model, config.num_heads * config.d_kv, config.d_ff
    s, t = inputs, targets
    encoder = config.num_layers * (8 * s * d * h + 4 * s * s * h + 6 * s * d * f)
    cross = 4 * (t + s) * d * h + 4 * t * s * h
    decoder = config.num_decoder_layers * (8 * t * d * h + 4 * t * t * h + cross + 6 * t * d * f)
    return encoder + decoder + 2 * t * d * config.vocab_size


def step(config: Any, tasks: Iterable[tuple[Sequence[int], Sequence[int]]], padded: bool) -> int:
    """FLOPs of forward and backward of a training step.

    tasks: for each, the lengths of its examples' inputs and targets. padded: every example counted as long as
    the longest, which is what a padded batch computes; else each with its own real tokens.
    """
    total = 0
    for inputs, targets in tasks:
        if padded:
            inputs, targets = [max(inputs)] * len(inputs), [max(targets)] * len(targets)
        total += sum(forward(config, s, t) for s, t in zip(inputs, targets, strict=True))
    return 3 * total


def positions(steps: Iterable[Sequence[tuple[Sequence[int], Sequence[int]]]], padded: bool) -> dict[str, int]:
    """Positions of the encoder and of the decoder in training steps; tasks and padded as in `step`."""
    found = {"encoder": 0, "decoder": 0}
    for tasks in steps:
        for sides in tasks:
            for name, lengths in zip(found, sides, strict=True):
                found[name] += max(lengths) * len(lengths) if padded else sum(lengths)
    return found

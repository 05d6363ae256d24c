"""Likelihoods of the options of a closed label set: how much a student believes in each label.

The score of an option is the log-likelihood of its token sequence, end token included, given the input;
normalised over the distinct options of the example it is the confidence whose calibration is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from cotdistill.students.kernels import Dropout
from cotdistill.students.layout import Layout
from cotdistill.students.output import OutputLayer
from cotdistill.students.packed import Passes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

Choices = dict[tuple[int, ...], str]
"""the distinct options of one example: token ids, end token included, and the text"""

MOST = 1024
"""positions whose logits are held at once"""


def choices(
    options: Sequence[Sequence[str]], golds: Sequence[str], tokenizer: PreTrainedTokenizerBase, longest: int
) -> list[Choices]:
    """The distinct options of every example, in the order in which they first stand.

    They are tokenised as labels are, and cut with their end token at `longest` tokens. Options that the
    tokenizer cannot tell apart are one; its text is the gold label's if that is among them.
    """
    texts = list(dict.fromkeys(text for row in options for text in row))
    end = int(tokenizer.eos_token_id)
    # an empty list is an error to the tokenizer
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    ids = {text: (*row[: longest - 1], end) for text, row in zip(texts, rows, strict=True)}
    found = []
    for row, gold in zip(options, golds, strict=True):
        one: Choices = {}
        for text in row:
            one.setdefault(ids[text], text)
        if gold in row:
            one[ids[gold]] = gold
        found.append(one)
    return found


@torch.inference_mode()
def log_likelihoods(
    model: T5ForConditionalGeneration, encoded: torch.Tensor, layout: Layout,
    candidates: Sequence[Sequence[Sequence[int]]], precision: str = "fp32",
) -> list[list[float]]:  # fmt: skip
    """log p(option | input) in nats, for every option (its token ids) of each of the R inputs.

    encoded: (N, d_model), the packed inputs' encoder output. All options go through the decoder together,
    teacher-forced; those of one input are one long sequence to its encoder output, which is read once.
    """
    flat = [list(ids) for options in candidates for ids in options]
    if not flat:
        return [[] for _ in candidates]
    device = encoded.device
    # attention takes groups of the same inputs on both sides, so inputs without options stay out
    rows = [row for row, options in enumerate(candidates) if options]
    own, kept = layout.of(rows)
    own_layout = Layout(kept, [len(kept)], device)
    lengths = [len(ids) for ids in flat]
    start = int(model.config.decoder_start_token_id)
    before = torch.tensor([token for ids in flat for token in [start, *ids[:-1]]], device=device)
    targets = torch.tensor([token for ids in flat for token in ids], device=device)
    passes = Passes(model, Dropout(0.0, 0, device), precision)
    totals = [sum(map(len, candidates[row])) for row in rows]
    states = passes.decoder(
        passes.embedded(before), Layout(lengths, [len(lengths)], device),
        encoded[own.to(device)], own_layout, Layout(totals, [len(totals)], device),
    )  # fmt: skip
    layer = OutputLayer(model, precision)
    scores: list[torch.Tensor] = []
    for part, target in zip(states.split(MOST), targets.split(MOST), strict=True):
        scores.append(layer.logits(part).log_softmax(-1).gather(1, target[:, None])[:, 0].double())
    left = iter(each.sum().item() for each in torch.cat(scores).split(lengths))
    return [[next(left) for _ in options] for options in candidates]


def normalised(scores: Sequence[float]) -> list[float]:
    """Probabilities in proportion to exp(score), which sum to 1. Natural logarithms; any shift is allowed."""
    highest = max(scores, default=0.0)
    parts = [math.exp(score - highest) for score in scores]
    total = math.fsum(parts)
    return [part / total for part in parts]

"""Likelihoods of the options of a closed label set: how much a student believes in each label.

The score of an option is the log-likelihood of its token sequence, end token included, given the input;
normalised over the distinct options of the example it is the confidence whose calibration is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from cotdistill.training.batches import IGNORED, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

Choices = dict[tuple[int, ...], str]
"""the distinct options of one example: token ids, end token included, and the text"""

MOST = 1024
"""options in one decoder pass: bounds memory where an example has dozens of them"""


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


def log_likelihoods(
    model: T5ForConditionalGeneration, batch: Batch, candidates: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """log p(option | input) in nats, for every option (its token ids) of each of the B inputs.

    The encoder runs once over the batch; all options go through the decoder together, teacher-forced
    (at most `MOST` at once). Sums are in float64.
    """
    from transformers.modeling_outputs import BaseModelOutput

    device = batch.input_ids.device
    states = model.get_encoder()(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
    owner = [row for row, options in enumerate(candidates) for _ in options]
    flat = [ids for options in candidates for ids in options]
    scores: list[float] = []
    for start in range(0, len(flat), MOST):
        labels = _padded(flat[start : start + MOST]).to(device)
        rows = torch.tensor(owner[start : start + MOST], device=device)
        logits = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states[rows]),
            attention_mask=batch.attention_mask[rows],
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        ).logits.float()
        real = labels != IGNORED
        chosen = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(-1)
        scores += chosen.double().masked_fill(~real, 0.0).sum(-1).tolist()
    left = iter(scores)
    return [[next(left) for _ in options] for options in candidates]


def normalised(scores: Sequence[float]) -> list[float]:
    """Probabilities in proportion to exp(score), which sum to 1. Natural logarithms; any shift is allowed."""
    highest = max(scores, default=0.0)
    parts = [math.exp(score - highest) for score in scores]
    total = math.fsum(parts)
    return [part / total for part in parts]


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """(R, longest) int64, -100 behind each row's end."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[IGNORED] * (longest - len(row))] for row in rows])

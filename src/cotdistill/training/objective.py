"""From a batch to gradients: the passes of a method's tasks, its loss terms, and their sum."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch.nn import functional as F

from cotdistill.methods import Method, TaskOutput, Term
from cotdistill.training.batches import IGNORED, Batch


def terms(
    model: torch.nn.Module, method: Method, batches: Mapping[str, Batch], tokens: Mapping[str, int],
    share: float, precision: str = "fp32",
) -> dict[str, Term]:
    """Named loss terms of one micro-batch, as its part of the whole batch's.

    tokens: real target tokens of the whole batch, by task; share: this micro-batch's part of the
    batch's examples. Summed over the micro-batches (of all processes), each term is that of the batch.
    """
    outputs = {}
    for task in method.tasks:
        batch = batches[task.name]
        logits, hidden = forward(model, batch, precision, method.needs_hidden)
        summed = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        cross_entropy = summed / tokens[task.name]
        outputs[task.name] = TaskOutput(logits, batch.labels != IGNORED, cross_entropy, share, hidden)
    return method.terms(outputs)


def forward(
    model: torch.nn.Module, batch: Batch, precision: str, states: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One teacher-forced pass: logits (B, T, V), and where asked for the decoder's last states
    (B, T, d_model), as the output layer reads them but for its scaling; both in float32."""
    device = batch.input_ids.device
    bf16 = precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=model._shift_right(batch.labels),  # type: ignore[operator]
            use_cache=False,
            output_hidden_states=states,
        )
    return output.logits.float(), output.decoder_hidden_states[-1].float() if states else None


def total(parts: Mapping[str, Term]) -> torch.Tensor:
    """The weighted sum. A term of weight 0 stays out, so that its value cannot change a bit of the rest."""
    weighted = [term.weight * term.value for term in parts.values() if term.weight != 0]
    loss = weighted[0]
    for value in weighted[1:]:
        loss = loss + value
    return loss

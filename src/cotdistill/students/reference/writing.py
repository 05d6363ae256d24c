"""Greedy generation by transformers' `generate`, with the log-probabilities of what it chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from cotdistill.students.reference.passes import Passes


@dataclass(frozen=True)
class Reading:
    """R inputs, encoded. states: (R, S, d_model); mask: (R, S), 1 where there is a token."""

    states: torch.Tensor
    mask: torch.Tensor

    def take(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return inputs, in this order, as a model's `forward` takes them."""
        encoded = BaseModelOutput(last_hidden_state=self.states[list(rows)])
        return {"encoder_outputs": encoded, "attention_mask": self.mask[list(rows)]}


class Writer:
    """Writes the most probable token, one position at a time; see `students.interface.Writer`."""

    def __init__(self, model: Any, precision: str = "fp32") -> None:
        self.passes = Passes(model, precision)

    def read(self, inputs: Sequence[torch.Tensor]) -> Reading:
        """Encode R inputs; see `students.interface.Writer`."""
        passes = self.passes
        ids = pad_sequence(list(inputs), batch_first=True, padding_value=passes.pad_token).to(passes.device)
        mask = pad_sequence([torch.ones_like(row) for row in inputs], batch_first=True).to(passes.device)
        with passes.evaluate(), passes.autocast():
            return Reading(passes.model.get_encoder()(input_ids=ids, attention_mask=mask)[0], mask)

    def write(self, read: Reading, longest: int, end: int) -> list[tuple[list[int], float]]:
        """Generate; see `students.interface.Writer`."""
        model, recorder = self.passes.model, Recorder()
        greedy = GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=longest, eos_token_id=end,
            pad_token_id=self.passes.pad_token, decoder_start_token_id=self.passes.start_token,
        )  # fmt: skip
        # `generate` takes what is not given from the checkpoint's own settings, such as forbidden repetitions
        checkpoint, model.generation_config = model.generation_config, greedy
        try:
            with self.passes.evaluate(), self.passes.autocast():
                found = model.generate(
                    **read.take(range(len(read.mask))), generation_config=greedy,
                    logits_processor=LogitsProcessorList([recorder]),
                )  # fmt: skip
        finally:
            model.generation_config = checkpoint
        # the first token is the start; behind the end is padding
        written = [ids[: (ids + [end]).index(end) + 1] for ids in found[:, 1:].tolist()]
        logs = torch.stack(recorder.logs, 1).cpu()
        return [(ids, float(row[: len(ids)].sum())) for ids, row in zip(written, logs, strict=True)]


class Recorder(LogitsProcessor):
    """Keeps the log-probability of the most probable token at each position: (R,) float64."""

    def __init__(self) -> None:
        self.logs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return (R, V) scores as they are."""
        self.logs.append(scores.log_softmax(-1).amax(-1).double())
        return scores

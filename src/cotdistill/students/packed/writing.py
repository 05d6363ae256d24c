"""Greedy generation by a T5: inputs without padding, caches that grow in place and drop what is finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from cotdistill.students.packed.kernels import Dropout, normalise
from cotdistill.students.packed.layout import Layout, size_groups
from cotdistill.students.packed.output import OutputLayer, choose_likeliest
from cotdistill.students.packed.passes import KeysValues, Passes
from cotdistill.students.packed.products import FixedWeight

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

ROOM = 16
"""positions that a cache has room for at first; the room is doubled when it is full"""
KEPT = 0.75
"""part of the cached sequences that is unfinished, at or below which the finished ones are dropped"""


@dataclass(frozen=True)
class Reading:
    """The decoder's keys and values of R inputs."""

    keys_values: KeysValues
    layout: Layout


class Writer:
    """Writes the most probable token, one position at a time; see `students.interface.Writer`."""

    def __init__(self, model: T5ForConditionalGeneration, precision: str = "fp32") -> None:
        self.model: Any = model
        self.config = model.config
        device = model.lm_head.weight.device
        self.passes = Passes(model, Dropout(0.0, 0, device), precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        stack: Any = model.decoder
        with torch.inference_mode():
            self.output = OutputLayer(model, precision, fixed=True)
            self.layers = [_Layer(block, self.config, dtype) for block in stack.block]
        self.norm, self.relative = stack.final_layer_norm, stack.block[0].layer[0].SelfAttention
        self.unseen: torch.Tensor | None = None
        """true where an input has no token, (R, 1, 1, S); None where all are of one length"""

    @torch.inference_mode()
    def read(self, inputs: Sequence[torch.Tensor]) -> Reading:
        """Encode R inputs; see `students.interface.Writer`."""
        device = self.output.weight.device
        layout = Layout([len(ids) for ids in inputs], size_groups(len(inputs)), device)
        encoded = self.passes.encode(self.passes.embed(torch.cat(list(inputs)).to(device)), layout)
        return Reading(self.passes.project_inputs(encoded), layout)

    @torch.inference_mode()
    def write(self, read: Reading, longest: int, end: int) -> list[tuple[list[int], float]]:
        """Generate; see `students.interface.Writer`."""
        rows = len(read.layout.lengths)
        device = self.output.weight.device
        (whole,) = Layout(read.layout.lengths, [rows], device).groups
        self.unseen = None if whole.padding is None else whole.padding[:, None, None, :]
        for layer, (key, value) in zip(self.layers, read.keys_values, strict=True):
            layer.begin(*(whole.split(each, self.config.num_heads) for each in (key, value)))
        tokens = torch.full((rows,), int(self.config.decoder_start_token_id), device=device)
        written: list[list[int]] = [[] for _ in range(rows)]
        # summed in float64, whose exponential of a long unsure sequence does not underflow to 0
        sums = torch.zeros(rows, dtype=torch.float64, device=device)
        bias = self._compute_bias(ROOM)
        place = torch.arange(rows, device=device)  # of the sequences still in the caches
        going = torch.ones(rows, dtype=torch.bool, device=device)
        for position in range(longest):
            if position == bias.shape[3]:
                bias = self._compute_bias(2 * position)
            logits = self._step(tokens, bias[..., bias.shape[3] - 1 - position :], position)
            tokens, probabilities = choose_likeliest(logits)
            sums[place[going]] += probabilities[going].double().log()
            for row, token in zip(place[going].tolist(), tokens[going].tolist(), strict=True):
                written[row].append(token)
            going &= tokens != end
            count = int(going.sum())
            if not count:
                break
            if count <= KEPT * len(going):
                kept = going.nonzero()[:, 0]
                place, tokens, going = place[kept], tokens[kept], going[kept]
                self._keep(kept)
        return list(zip(written, sums.tolist(), strict=True))

    def _compute_bias(self, room: int) -> torch.Tensor:
        """Return the attention's bias by distance, (1, heads, 1, room): from room - 1 to 0 positions back."""
        found: torch.Tensor = self.relative.compute_bias(1, room, past_seen_tokens=room - 1)
        return found

    def _step(self, tokens: torch.Tensor, bias: torch.Tensor, position: int) -> torch.Tensor:
        """Return the logits (R, V) of the next token, after tokens: (R,) at `position`."""
        x = F.embedding(tokens, self.model.shared.weight)
        for layer in self.layers:
            x = layer.step(x, bias, self.unseen, position)
        return self.output.compute_logits(_normalise(self.norm, x, torch.float32))

    def _keep(self, rows: torch.Tensor) -> None:
        """Keep these rows of the caches alone: the other sequences have ended."""
        if self.unseen is not None:
            self.unseen = self.unseen[rows]
        for layer in self.layers:
            layer.keep(rows)


class _Layer:
    """One decoder block for generation: its weights, laid out for many products, and its caches."""

    key: torch.Tensor
    value: torch.Tensor
    """(R, heads, S, d_kv), of the inputs"""

    def __init__(self, block: Any, config: Any, dtype: torch.dtype) -> None:
        own, cross, forward = block.layer
        self.heads, self.dtype = config.num_heads, dtype
        self.norms = own.layer_norm, cross.layer_norm, forward.layer_norm
        attention, reading = own.SelfAttention, cross.EncDecAttention
        inner = forward.DenseReluDense
        gelu = config.dense_act_fn == "gelu_new"

        def fix(weight: torch.Tensor, gelu: bool = False) -> FixedWeight:
            return FixedWeight(weight.to(dtype), gelu)

        self.joint = fix(torch.cat([attention.q.weight, attention.k.weight, attention.v.weight]))
        self.out = fix(attention.o.weight)
        self.query, self.cross_out = fix(reading.q.weight), fix(reading.o.weight)
        self.wide = fix((inner.wi_0 if config.is_gated_act else inner.wi).weight, gelu)
        self.linear = fix(inner.wi_1.weight) if config.is_gated_act else None
        self.narrow = fix(inner.wo.weight)
        self.activation = torch.nn.Identity() if gelu else inner.act
        self.past: torch.Tensor | None = None
        """(2, R, heads, room, d_kv): keys and values of what is written"""

    def begin(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Start a new batch: clear what was written, and take the inputs' keys and values."""
        self.key, self.value, self.past = key, value, None

    def step(
        self, x: torch.Tensor, bias: torch.Tensor, unseen: torch.Tensor | None, position: int
    ) -> torch.Tensor:
        """Return the block's output (R, d_model) at one position, of x: (R, d_model)."""
        states = _normalise(self.norms[0], x, self.dtype)
        query, *new = self.joint(states).view(len(x), 3, self.heads, -1).unbind(1)
        past = self._append(torch.stack(new), position)
        x = x + self.out(self._attend(query, past[0], past[1], bias, None))
        query = self.query(_normalise(self.norms[1], x, self.dtype)).view(len(x), self.heads, -1)
        x = x + self.cross_out(self._attend(query, self.key, self.value, None, unseen))
        states = _normalise(self.norms[2], x, self.dtype)
        hidden = self.activation(self.wide(states))
        if self.linear is not None:
            hidden = hidden * self.linear(states)
        return x + self.narrow(hidden)

    def _append(self, new: torch.Tensor, position: int) -> torch.Tensor:
        """Put new: (2, R, heads, d_kv) into the cache; return the cache up to `position`."""
        if self.past is None or position == self.past.shape[3]:
            room = max(ROOM, 2 * position)
            grown = new.new_empty(*new.shape[:3], room, new.shape[3])
            if self.past is not None:
                grown[..., :position, :] = self.past
            self.past = grown
        self.past[..., position, :] = new
        return self.past[..., : position + 1, :]

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None,
        unseen: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        scores = torch.matmul(query[:, :, None], key.transpose(2, 3)).float()
        if bias is not None:
            scores += bias
        if unseen is not None:
            scores.masked_fill_(unseen, -torch.inf)
        return torch.matmul(scores.softmax(-1).to(value.dtype), value).flatten(1)

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows of the caches alone."""
        assert self.past is not None
        self.past, self.key, self.value = self.past[:, rows], self.key[rows], self.value[rows]


def _normalise(norm: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return normalise(x, norm.weight, norm.variance_epsilon, dtype)

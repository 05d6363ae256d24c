"""Teacher-forced passes of a T5 without padding: tokens of all sequences in one (N, d_model) tensor.

Every layer but attention treats tokens one by one, so only attention's scores are computed on padding. The
numbers are those of transformers' own forward pass; its modules hold the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from cotdistill.students.packed.kernels import Dropout, add_residual, attend, drop, gate_and_drop, normalise
from cotdistill.students.packed.layout import Layout
from cotdistill.students.packed.products import linear

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@dataclass(frozen=True)
class Sequences:
    """R pairs of input and decoder input: token ids end to end, and where each sequence lies."""

    inputs: torch.Tensor
    """(N,) int64"""
    decoder_inputs: torch.Tensor
    """(M,) int64"""
    input_layout: Layout
    decoder_layout: Layout


def compute_states(
    model: T5ForConditionalGeneration, batch: Sequences, dropout: Dropout, precision: str = "fp32"
) -> torch.Tensor:
    """Return the decoder's last states (M, d_model), float32, before the output layer's scaling."""
    passes = Passes(model, dropout, precision)
    # one look-up, one gradient of the embeddings' size
    ids = torch.cat([batch.inputs, batch.decoder_inputs])
    inputs, decoder_inputs = passes.embed(ids).split([len(batch.inputs), len(batch.decoder_inputs)])
    read = passes.project_inputs(passes.encode(inputs, batch.input_layout))
    return passes.decode(decoder_inputs, batch.decoder_layout, read, batch.input_layout)


KeysValues = list[tuple[torch.Tensor, torch.Tensor]]
"""what each decoder layer reads of the inputs: keys and values, (N, heads * d_kv)"""


@dataclass(frozen=True)
class Shared:
    """Decoder sequences with equal beginnings, which are computed once."""

    places: torch.Tensor
    """(L,), for each position of all sequences end to end its token among the distinct ones"""
    firsts: torch.Tensor
    """(n,), for each distinct token one of its positions"""
    layout: Layout
    """of the L positions"""


class Passes:
    """A model's two stacks, on packed embeddings (N, d_model)."""

    def __init__(self, model: T5ForConditionalGeneration, dropout: Dropout, precision: str) -> None:
        self.model, self.dropout = model, dropout
        self.bf16 = precision == "bf16"
        self.dtype = torch.bfloat16 if self.bf16 else torch.float32
        self.heads = model.config.num_heads

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (N, d_model) of token ids (N,)."""
        return F.embedding(ids, self.model.shared.weight)

    def autocast(self) -> torch.autocast:
        """Return a context in which matrix products are computed in bf16, where that is the precision."""
        return torch.autocast(self.model.shared.weight.device.type, torch.bfloat16, enabled=self.bf16)

    def encode(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return the encoder's output (N, d_model), for embeddings x: (N, d_model)."""
        with self.autocast():
            return self._encode(x, layout)

    def project_inputs(self, encoded: torch.Tensor) -> KeysValues:
        """Return each decoder layer's keys and values of the encoder's output (N, d_model)."""
        layers = [block.layer[1].EncDecAttention for block in self.model.decoder.block]
        with self.autocast():
            return [(linear(encoded, each.k.weight), linear(encoded, each.v.weight)) for each in layers]

    def decode(
        self, x: torch.Tensor, layout: Layout, read: KeysValues, input_layout: Layout,
        shared: Shared | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Return the decoder's last states (n, d_model), float32, for embeddings x: (n, d_model).

        layout: of x by the input that it reads. shared: where several sequences read one input, how they lie
        among x; without it there is one sequence to an input.
        """
        with self.autocast():
            return self._decode(x, layout, read, input_layout, shared).float()

    def _encode(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        stack: Any = self.model.encoder
        bias = self._bias(stack, layout)
        x = drop(x, self.dropout)
        for block in stack.block:
            x = self._self_attention(block.layer[0], x, bias, layout)
            x = self._feed_forward(block.layer[1], x)
        # every decoder layer reads these: rounded once
        return drop(self._norm(stack.final_layer_norm, x), self.dropout)

    def _decode(
        self, x: torch.Tensor, layout: Layout, read: KeysValues, input_layout: Layout, shared: Shared | None
    ) -> torch.Tensor:
        stack: Any = self.model.decoder
        bias = self._bias(stack, shared.layout if shared else layout)
        later = torch.ones(bias.shape[2:], dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(later, -torch.inf)
        x = drop(x, self.dropout)
        for block, (key, value) in zip(stack.block, read, strict=True):
            x = self._self_attention(block.layer[0], x, bias, layout, shared)
            x = self._cross_attention(block.layer[1], x, layout, key, value, input_layout)
            x = self._feed_forward(block.layer[2], x)
        norm = stack.final_layer_norm
        return drop(normalise(x, norm.weight, norm.variance_epsilon, torch.float32), self.dropout)

    def _bias(self, stack: Any, layout: Layout) -> torch.Tensor:
        """Return (1, heads, longest, longest), the relative positions' part of the scores, float32."""
        attention = stack.block[0].layer[0].SelfAttention
        bias: torch.Tensor = attention.compute_bias(layout.longest, layout.longest)
        return bias

    def _norm(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        return normalise(x, module.weight, module.variance_epsilon, self.dtype)

    def _self_attention(
        self, layer: Any, x: torch.Tensor, bias: torch.Tensor, layout: Layout, shared: Shared | None = None
    ) -> torch.Tensor:
        attention, states = layer.SelfAttention, self._norm(layer.layer_norm, x)
        projections = (attention.q, attention.k, attention.v)
        query, key, value = (linear(states, each.weight) for each in projections)
        if shared is not None:
            query, key, value = (each[shared.places] for each in (query, key, value))
            layout = shared.layout
        found = attend(query, key, value, bias, layout, layout, self.heads, self.dropout)
        if shared is not None:
            found = found[shared.firsts]
        return add_residual(x, linear(found, attention.o.weight), self.dropout)

    def _cross_attention(
        self, layer: Any, x: torch.Tensor, layout: Layout, key: torch.Tensor, value: torch.Tensor,
        input_layout: Layout,
    ) -> torch.Tensor:
        attention, states = layer.EncDecAttention, self._norm(layer.layer_norm, x)
        query = linear(states, attention.q.weight)
        found = attend(query, key, value, None, layout, input_layout, self.heads, self.dropout)
        return add_residual(x, linear(found, attention.o.weight), self.dropout)

    def _feed_forward(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        inner, states = layer.DenseReluDense, self._norm(layer.layer_norm, x)
        config = self.model.config
        if config.is_gated_act and config.dense_act_fn == "gelu_new":
            hidden = gate_and_drop(
                linear(states, inner.wi_0.weight), linear(states, inner.wi_1.weight), self.dropout
            )
        elif config.is_gated_act:
            hidden = drop(inner.act(inner.wi_0(states)) * inner.wi_1(states), self.dropout)
        else:
            hidden = drop(inner.act(inner.wi(states)), self.dropout)
        return add_residual(x, linear(hidden, inner.wo.weight), self.dropout)

"""Teacher-forced passes of a T5 without padding: tokens of all sequences in one (N, d_model) tensor.

Every layer but attention treats tokens one by one, so padding is nowhere computed but in attention's
scores. The numbers are those of transformers' own forward pass; its modules hold the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from cotdistill.students.kernels import Dropout, added, attended, dropped, gated, normed
from cotdistill.students.layout import Layout

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


def decoder_states(
    model: T5ForConditionalGeneration, batch: Sequences, dropout: Dropout, precision: str = "fp32"
) -> torch.Tensor:
    """(M, d_model) float32: the decoder's last states, as the output layer reads them but for its scaling."""
    passes = Passes(model, dropout, precision)
    # one look-up, one gradient of the embeddings' size
    ids = torch.cat([batch.inputs, batch.decoder_inputs])
    inputs, decoder_inputs = passes.embedded(ids).split([len(batch.inputs), len(batch.decoder_inputs)])
    encoded = passes.encoder(inputs, batch.input_layout)
    return passes.decoder(decoder_inputs, batch.decoder_layout, encoded, batch.input_layout)


class Passes:
    """A model's two stacks, on packed embeddings (N, d_model)."""

    def __init__(self, model: T5ForConditionalGeneration, dropout: Dropout, precision: str) -> None:
        self.model, self.dropout = model, dropout
        self.bf16 = precision == "bf16"
        self.dtype = torch.bfloat16 if self.bf16 else torch.float32
        self.heads = model.config.num_heads

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """(N, d_model) of (N,) token ids."""
        return F.embedding(ids, self.model.shared.weight)

    def autocast(self) -> torch.autocast:
        """Matrix products in bf16 where that is the precision."""
        return torch.autocast(self.model.shared.weight.device.type, torch.bfloat16, enabled=self.bf16)

    def encoder(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """(N, d_model), the encoder's output."""
        with self.autocast():
            return self._encoder(x, layout)

    def decoder(
        self, x: torch.Tensor, layout: Layout, encoded: torch.Tensor, encoded_layout: Layout,
        cross: Layout | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """(N, d_model) float32, the decoder's last states.

        cross: x by the input that it reads, where several sequences next to each other share one; without
        it each sequence has its own.
        """
        with self.autocast():
            return self._decoder(x, layout, encoded, encoded_layout, cross or layout).float()

    def _encoder(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        stack: Any = self.model.encoder
        bias = self._bias(stack, layout)
        x = dropped(x, self.dropout)
        for block in stack.block:
            x = self._self_attention(block.layer[0], x, bias, layout)
            x = self._feed_forward(block.layer[1], x)
        # every decoder layer reads these: rounded once
        return dropped(self._norm(stack.final_layer_norm, x), self.dropout)

    def _decoder(
        self, x: torch.Tensor, layout: Layout, encoded: torch.Tensor, encoded_layout: Layout, cross: Layout
    ) -> torch.Tensor:
        stack: Any = self.model.decoder
        bias = self._bias(stack, layout)
        later = torch.ones(bias.shape[2:], dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(later, -torch.inf)
        x = dropped(x, self.dropout)
        for block in stack.block:
            x = self._self_attention(block.layer[0], x, bias, layout)
            x = self._cross_attention(block.layer[1], x, cross, encoded, encoded_layout)
            x = self._feed_forward(block.layer[2], x)
        norm = stack.final_layer_norm
        return dropped(normed(x, norm.weight, norm.variance_epsilon, torch.float32), self.dropout)

    def _bias(self, stack: Any, layout: Layout) -> torch.Tensor:
        """(1, heads, longest, longest): the relative positions' part of the scores, float32."""
        attention = stack.block[0].layer[0].SelfAttention
        bias: torch.Tensor = attention.compute_bias(layout.longest, layout.longest)
        return bias

    def _norm(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        return normed(x, module.weight, module.variance_epsilon, self.dtype)

    def _self_attention(
        self, layer: Any, x: torch.Tensor, bias: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        attention, states = layer.SelfAttention, self._norm(layer.layer_norm, x)
        projections = (attention.q, attention.k, attention.v)
        query, key, value = (F.linear(states, each.weight) for each in projections)
        found = attended(query, key, value, bias, layout, layout, self.heads, self.dropout)
        return added(x, F.linear(found, attention.o.weight), self.dropout)

    def _cross_attention(
        self, layer: Any, x: torch.Tensor, layout: Layout, encoded: torch.Tensor, encoded_layout: Layout
    ) -> torch.Tensor:
        attention, states = layer.EncDecAttention, self._norm(layer.layer_norm, x)
        query = F.linear(states, attention.q.weight)
        key, value = F.linear(encoded, attention.k.weight), F.linear(encoded, attention.v.weight)
        found = attended(query, key, value, None, layout, encoded_layout, self.heads, self.dropout)
        return added(x, F.linear(found, attention.o.weight), self.dropout)

    def _feed_forward(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        inner, states = layer.DenseReluDense, self._norm(layer.layer_norm, x)
        config = self.model.config
        if config.is_gated_act and config.dense_act_fn == "gelu_new":
            hidden = gated(
                F.linear(states, inner.wi_0.weight), F.linear(states, inner.wi_1.weight), self.dropout
            )
        elif config.is_gated_act:
            hidden = dropped(inner.act(inner.wi_0(states)) * inner.wi_1(states), self.dropout)
        else:
            hidden = dropped(inner.act(inner.wi(states)), self.dropout)
        return added(x, F.linear(hidden, inner.wo.weight), self.dropout)

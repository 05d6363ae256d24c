"""The sublayers of T5 on packed tokens, as autograd functions.

They are written out because the same composed from torch's single operations costs a small student more time
in passes over memory, saved tensors and calls than in arithmetic. Each equals transformers' own to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from cotdistill.students.packed import operators
from cotdistill.students.packed.layout import Layout

WORDS = 4
"""16-bit numbers in one draw of 64 bits"""


class Dropout:
    """Masks of one pass over a batch, drawn from a random stream of its own; the global state is not used.

    A mask is true where a value is kept. 16 random bits decide: the rate is rounded to a multiple of 2^-16,
    and `scale` is the factor that then keeps the mean exactly.
    """

    def __init__(self, rate: float, seed: int, device: torch.device) -> None:
        self.dropped = round(rate * 2**16)
        self.scale = 1 / (1 - self.dropped / 2**16)
        self.device = device
        self._stream: Any = np.random.Generator(np.random.SFC64(seed))
        if device.type != "cpu":
            self._stream = torch.Generator(device).manual_seed(seed)

    def draw_mask(self, *shape: int) -> torch.Tensor | None:
        """Draw a bool tensor of this shape, true where a value is kept; None where nothing is dropped."""
        if not self.dropped:
            return None
        size = math.prod(shape)
        bits = self._draw_words(-(-size // WORDS)).view(torch.int16)[:size]
        return (bits >= self.dropped - 2**15).view(shape)

    def _draw_words(self, count: int) -> torch.Tensor:
        if isinstance(self._stream, torch.Generator):
            words = torch.empty(count, dtype=torch.int64, device=self.device)
            return words.random_(torch.iinfo(torch.int64).min, None, generator=self._stream)
        # numpy draws a word in half the time that torch needs on a CPU
        return torch.from_numpy(self._stream.integers(0, 2**64, size=count, dtype=np.uint64).view(np.int64))


def drop(x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
    """Apply dropout to x, of any shape."""
    mask = dropout.draw_mask(*x.shape)
    return x if mask is None else _DropFunction.apply(x, mask, dropout.scale)


class _DropFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.mask, ctx.scale = mask, scale
        return x * _as_factor(mask, scale, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grad * _as_factor(ctx.mask, ctx.scale, grad.dtype), None, None


def add_residual(x: torch.Tensor, y: torch.Tensor, dropout: Dropout) -> torch.Tensor:
    """Return x + dropout(y), in the type of x: the end of a sublayer."""
    mask = dropout.draw_mask(*y.shape)
    return x + y if mask is None else _AddFunction.apply(x, y, mask, dropout.scale)


class _AddFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        ctx.mask, ctx.scale, ctx.dtype = mask, scale, y.dtype
        return torch.addcmul(x, y.to(x.dtype), _as_number(mask, x.dtype), value=scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        return grad, (grad * _as_factor(ctx.mask, ctx.scale, grad.dtype)).to(ctx.dtype), None, None


def normalise(x: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype) -> torch.Tensor:
    """Return T5's layer norm of (N, d), x / sqrt(mean of squares + epsilon) * weight, in `dtype`."""
    result: torch.Tensor = _NormFunction.apply(x, weight, epsilon, dtype)
    return result


class _NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype
    ) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # reads x once
        scale = (length.square_() / x.shape[-1] + epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        grad = grad.float()
        unit = x * scale
        both = grad * unit
        along = (both @ weight)[:, None] / x.shape[1]
        into = torch.addcmul(grad * weight, unit, along, value=-1).mul_(scale)
        return into, both.sum(0), None, None


def gate_and_drop(gate: torch.Tensor, linear: torch.Tensor, dropout: Dropout) -> torch.Tensor:
    """Return dropout(gelu(gate) * linear), GELU in its tanh form: the middle of v1.1's feed-forward layer."""
    result: torch.Tensor = _GateFunction.apply(gate, linear, dropout.draw_mask(*gate.shape), dropout.scale)
    return result


class _GateFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: torch.Tensor, linear: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(gate, linear)
        ctx.mask, ctx.scale = mask, scale
        product = F.gelu(gate, approximate="tanh").mul_(linear)
        return product if mask is None else product.mul_(_as_factor(mask, scale, product.dtype))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        gate, linear = ctx.saved_tensors
        if ctx.mask is not None:
            grad = grad * _as_factor(ctx.mask, ctx.scale, grad.dtype)
        into_linear = F.gelu(gate, approximate="tanh").mul_(grad)
        into_gate = operators.gelu_backward(grad * linear, gate)
        return into_gate, into_linear, None, None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None,
    queries: Layout, keys: Layout, heads: int, dropout: Dropout,
) -> torch.Tensor:
    """Return the attention of each sequence of `queries` to the same sequence of `keys`, all heads.

    query: (N, heads * d_kv), key and value: (M, heads * d_kv), packed as the layouts say; bias: (1, heads, T,
    S), added to the scores (T5 scales nothing), -inf where a query may not look. Only here are sequences
    padded, each group of a layout to its own longest. The result is (N, heads * d_kv).
    """
    masks = [
        dropout.draw_mask(q.rows, heads, q.longest, k.longest)
        for q, k in zip(queries.groups, keys.groups, strict=True)
    ]
    result: torch.Tensor = _AttendFunction.apply(
        query, key, value, bias, queries, keys, heads, masks, dropout.scale
    )
    return result


class _AttendFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None,
        queries: Layout, keys: Layout, heads: int, masks: list[torch.Tensor | None], scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.layouts, ctx.heads, ctx.masks, ctx.scale = (queries, keys), heads, masks, scale
        ctx.bias = None if bias is None else (bias.shape, bias.dtype, bias.device)
        ctx.probabilities, results = [], []
        for q, k, mask in zip(queries.groups, keys.groups, masks, strict=True):
            left, right = q.split(query, heads), k.split(key, heads)
            scores = torch.matmul(left, right.transpose(2, 3)).float()
            if bias is not None:
                scores += bias[..., : q.longest, : k.longest]
            if k.padding is not None:
                scores.masked_fill_(k.padding[:, None, None, :], -torch.inf)
            weights = scores.softmax(-1)
            ctx.probabilities.append(weights)
            seen = _mask_out(weights, mask).to(value.dtype)
            results.append(q.join(torch.matmul(seen, k.split(value, heads))))
        # dropout's scale is applied to the sums, which are far fewer numbers than the weights
        return torch.cat(results).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        queries, keys = ctx.layouts
        grad = grad * ctx.scale
        into_bias = None
        if ctx.bias is not None:
            shape, dtype, device = ctx.bias
            into_bias = torch.zeros(shape, dtype=dtype, device=device)
        parts: list[tuple[torch.Tensor, ...]] = []
        saved = zip(queries.groups, keys.groups, ctx.masks, ctx.probabilities, strict=True)
        for q, k, mask, weights in saved:
            left, right = q.split(query, ctx.heads), k.split(key, ctx.heads)
            given = q.split(grad, ctx.heads, zeros=True)  # so that padding adds to no gradient
            into = torch.matmul(given, k.split(value, ctx.heads).transpose(2, 3)).float()
            into = _mask_out(into, mask)
            into = operators.softmax_backward(into, weights)
            if into_bias is not None:
                into_bias[..., : q.longest, : k.longest] += into.sum(0)
            into = into.to(query.dtype)
            seen = _mask_out(weights, mask).to(value.dtype)
            parts.append((
                q.join(torch.matmul(into, right)),
                k.join(torch.matmul(into.transpose(2, 3), left)),
                k.join(torch.matmul(seen.transpose(2, 3), given)),
            ))
        into_query, into_key, into_value = (
            torch.cat(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True)
        )
        return into_query, into_key, into_value, into_bias, None, None, None, None, None


def _mask_out(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return x if mask is None else x * _as_number(mask, x.dtype)


def _as_factor(mask: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask as a factor in `dtype`: 0 where a value is dropped, else `scale`."""
    return _as_number(mask, dtype).mul_(scale)


def _as_number(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask as 0 and 1; read as bytes, which a CPU converts in a fifth of the time of bools."""
    return mask.view(torch.uint8).to(dtype)

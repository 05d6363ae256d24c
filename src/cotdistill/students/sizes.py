"""Count the parameters of a T5 by its sizes, without building it."""

from __future__ import annotations

from cotdistill.config.models import ScratchStudent


def count_parameters(
    d_model: int, d_ff: int, d_kv: int, heads: int, encoder: int, decoder: int, vocabulary: int, *,
    gated: bool, tied: bool, buckets: int = 32,
) -> int:  # fmt: skip
    """Count a T5's parameters: attention and feed-forward layers with norms, positions, embeddings."""
    attention = 4 * d_model * heads * d_kv + d_model
    forward = (3 if gated else 2) * d_model * d_ff + d_model
    layers = encoder * (attention + forward) + decoder * (2 * attention + forward)
    return layers + 2 * d_model + 2 * buckets * heads + (1 if tied else 2) * vocabulary * d_model


def count_weights(settings: ScratchStudent, vocabulary: int) -> int:
    """Return how many weights the student of `scratch.build` has."""
    return count_parameters(
        settings.d_model, settings.d_ff, settings.d_kv, settings.heads, settings.layers, settings.layers,
        vocabulary, gated=True, tied=True,
    )  # fmt: skip

"""The likeliest token of a row of logits, against its definition in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.students.packed.output import BLOCK, choose_likeliest


@settings(max_examples=60, deadline=None)
@given(
    width=st.sampled_from([1, 2, 100, BLOCK, 3 * BLOCK, 3 * BLOCK + 1]), rows=st.integers(1, 5),
    seed=st.integers(0, 2**32), spread=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
)  # fmt: skip
def test_likeliest_is_the_first_maximum_and_its_softmax(width: int, rows: int, seed: int, spread: float):
    torch.manual_seed(seed)
    logits = (torch.randn(rows, width) * spread).round(decimals=1)  # so that some are equal
    tokens, probabilities = choose_likeliest(logits.clone())
    for row, token, probability in zip(logits.double().tolist(), tokens, probabilities, strict=True):
        assert token == row.index(max(row))
        assert probability.item() == pytest.approx(
            torch.tensor(row, dtype=torch.float64).softmax(0)[token].item(), rel=1e-5
        )
        assert 0 < probability <= 1

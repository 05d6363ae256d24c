"""A student whose two tasks' representations are taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cotdistill.config.models import ScratchStudent
from cotdistill.data.batches import Collator
from cotdistill.data.prepared import Prepared
from cotdistill.students import scratch


@pytest.fixture(scope="session")
def collator(tiny: Any) -> Collator:
    return Collator(Prepared(tiny.prepared), "train", "gold", 64, 48)


@pytest.fixture
def model(collator: Collator) -> torch.nn.Module:
    settings = ScratchStudent(d_model=16, d_ff=32, d_kv=4, heads=2, layers=1, dropout=0.3)
    return scratch.build(settings, len(collator.tokenizer), seed=1)

"""T5 checkpoints as the hub holds them, tiny: original (tied, ReLU) and v1.1 (untied, gated GELU)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file

from cotdistill.students.packed import layout
from cotdistill.students.packed import learning as packed_learning
from cotdistill.students.packed import scoring as packed_scoring
from cotdistill.students.reference import passes

WORDS = "ann bob cem dia paints the cup hat car pen box red dark blue green with grey dots what colour is of"
ENDS = ("predict:", "explain:", "1 2.0")
LINES = [f"{first} {second} {end}" for first in WORDS.split() for second in WORDS.split() for end in ENDS]
PIECES, EMBEDDINGS = 60, 192  # with T5's 100 extra ids 160 tokens; the hub's also have embeddings to spare


def write_tokenizer(folder: Path) -> None:
    """`spiece.model`, the only tokenizer file of a v1.1 checkpoint on the hub."""
    with open(folder / "spiece.model", "wb") as handle:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES), model_writer=handle, vocab_size=PIECES, hard_vocab_limit=False,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1,
        )  # fmt: skip
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "eos_token": "</s>", "pad_token": "<pad>",
                "unk_token": "<unk>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_weights(folder: Path, tied: bool, **config: Any) -> dict[str, torch.Tensor]:
    """`config.json` and `model.safetensors`, written without transformers' own saving; gives the tensors."""
    from transformers import T5Config, T5ForConditionalGeneration

    settings = {
        "vocab_size": EMBEDDINGS, "d_model": 16, "d_ff": 32, "d_kv": 4, "num_heads": 2, "num_layers": 1,
        "num_decoder_layers": 1, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
        "dropout_rate": 0.1, "feed_forward_proj": "relu" if tied else "gated-gelu",
    }  # fmt: skip
    torch.manual_seed(3 if tied else 4)
    shapes = T5ForConditionalGeneration(T5Config(**settings)).state_dict()
    skipped = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    tensors = {name: 0.3 * torch.randn(value.shape) for name, value in shapes.items() if name not in skipped}
    if not tied:
        tensors["lm_head.weight"] = 0.3 * torch.randn(EMBEDDINGS, 16)
        settings["tie_word_embeddings"] = False
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], **settings, **config}
    (folder / "config.json").write_text(json.dumps(written))
    return tensors


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., dict[str, torch.Tensor]]:
    """Write a whole checkpoint to a folder; gives the tensors that stand in it."""

    def write(folder: Path, tied: bool, **config: Any) -> dict[str, torch.Tensor]:
        tensors = write_weights(folder, tied, **config)
        write_tokenizer(folder)
        return tensors

    return write


@pytest.fixture(params=[False, True], ids=["whole", "cut"])
def cut(request: Any, monkeypatch: Any) -> bool:
    """Whether engines cut batches and logits into the smallest parts, or into none."""
    if request.param:
        monkeypatch.setitem(passes.MEMORY, "cpu", 1)
        monkeypatch.setattr(packed_learning, "MEMORY", 1)
        monkeypatch.setattr(packed_learning, "CHUNK", 1)
        monkeypatch.setattr(packed_scoring, "MOST", 2)
        monkeypatch.setattr(layout, "GROUP", 3)
    return bool(request.param)

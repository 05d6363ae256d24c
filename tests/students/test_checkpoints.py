"""Checkpoints are judged by what they store: each loads as the model that was saved, whoever saved it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cotdistill import students
from cotdistill.config.models import StudentEntry
from cotdistill.students import engines, pretrained
from tests.students.checkpoints import IDS, edit_config, edit_tensors, generated, logits, refused, to_pickle

Write = Callable[..., dict[str, torch.Tensor]]
KINDS = {"original": True, "v1.1": False, "flan": False}
"""the families, and whether their output layer is tied to the embeddings, its inputs scaled"""
FORMS = ("one", "shards", "bin", "bin shards")


def save_again(source: Path, target: Path, write_checkpoint: Write, kind: str, dtype: str, form: str) -> Any:
    """A checkpoint as transformers 5 saves one that it loaded; returns the model that was saved."""
    from transformers import T5ForConditionalGeneration

    tied = KINDS[kind]
    more = {"feed_forward_proj": "gated-gelu"} if kind == "flan" else {}
    write_checkpoint(source, tied, **more)
    model = T5ForConditionalGeneration.from_pretrained(source, dtype=getattr(torch, dtype))
    model.save_pretrained(target, max_shard_size="2KB" if form == "shards" else "1GB")
    for name in ("spiece.model", "tokenizer_config.json"):
        (target / name).write_bytes((source / name).read_bytes())
    if form.startswith("bin"):
        to_pickle(target, several="shards" in form)
    return model.float()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_saved_again_is_the_model_that_was_saved(
    kind: str, dtype: str, form: str, write_checkpoint: Write, tmp_path: Path
):
    saved = save_again(tmp_path / "hub", tmp_path / "again", write_checkpoint, kind, dtype, form)
    assert json.loads((tmp_path / "again/config.json").read_text())["tie_word_embeddings"] is True
    entry = StudentEntry(name="again", pretrained=str(tmp_path / "again"))
    students.make_tokenizer(entry, [], tmp_path / "tokenizer")
    model = pretrained.load(str(tmp_path / "again"))
    assert (model.lm_head.weight is model.shared.weight) == KINDS[kind]
    assert model.config.scale_decoder_outputs == KINDS[kind] and model.dtype == torch.float32
    assert torch.equal(logits(model), logits(saved))
    assert torch.equal(generated(model), generated(saved))


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_folders_load_with_plain_transformers(kind: str, write_checkpoint: Write, tmp_path: Path):
    from transformers import AutoModelForSeq2SeqLM

    saved = save_again(tmp_path / "hub", tmp_path / "again", write_checkpoint, kind, "float32", "one")
    model, tokenizer = pretrained.load(str(tmp_path / "again")), pretrained.fetch(str(tmp_path / "again"))
    students.save(model, tokenizer, tmp_path / "ours")
    for loaded in (AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours"),
                   students.load_saved(tmp_path / "ours")):  # fmt: skip
        assert torch.equal(logits(loaded), logits(saved))
        assert torch.equal(generated(loaded), generated(saved))


@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_config_leaves_out_is_filled(kind: str, engine: str, write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, KINDS[kind])
    whole = pretrained.load(str(tmp_path))
    lost = ("decoder_start_token_id", "pad_token_id", "eos_token_id", "feed_forward_proj", "dropout_rate",
            "tie_word_embeddings", "num_decoder_layers")  # fmt: skip
    edit_config(tmp_path, drop=lost)
    pretrained.fetch(str(tmp_path))
    model = pretrained.load(str(tmp_path))
    assert torch.equal(logits(model), logits(whole))
    assert model.config.decoder_start_token_id == 0
    writers = [engines.make_writer(engine, each) for each in (model, whole)]
    wrote = [writer.write(writer.read([IDS[0]]), 6, 1) for writer in writers]
    assert wrote[0] == wrote[1] and wrote[0][0][0]


def test_a_layer_tied_and_not_scaled_stays_so(write_checkpoint: Write, tmp_path: Path):
    """As transformers 5 makes a fresh v1.1 student: no table of its own, and no scaling."""
    from transformers import T5Config, T5ForConditionalGeneration

    write_checkpoint(tmp_path, True)
    found = json.loads((tmp_path / "config.json").read_text())
    fresh = T5ForConditionalGeneration(T5Config(**found, tie_word_embeddings=False))
    fresh.save_pretrained(tmp_path)
    model = pretrained.load(str(tmp_path))
    assert torch.equal(logits(model), logits(fresh))
    students.save(model, pretrained.fetch(str(tmp_path)), tmp_path / "ours")
    assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(tmp_path / "ours")), logits(fresh))


@pytest.mark.parametrize(
    "name", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]
)
def test_embeddings_stored_under_another_name_are_found(name: str, write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, True)
    whole = logits(pretrained.load(str(tmp_path)))
    edit_tensors(tmp_path, lambda tensors: tensors.update({name: tensors.pop("shared.weight")}))
    pretrained.fetch(str(tmp_path))
    assert torch.equal(logits(pretrained.load(str(tmp_path))), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_come_out_in_float32(dtype: torch.dtype, write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False)
    edit_tensors(tmp_path, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    pretrained.fetch(str(tmp_path))
    model = pretrained.load(str(tmp_path))
    stored = load_file(tmp_path / "model.safetensors")
    assert model.dtype == torch.float32
    assert torch.equal(model.lm_head.weight, stored["lm_head.weight"].float())


def test_the_links_of_the_hubs_cache_are_followed(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path / "blobs", False)
    (tmp_path / "snapshot").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    pretrained.fetch(str(tmp_path / "snapshot"))
    pretrained.load(str(tmp_path / "snapshot"))
    (tmp_path / "blobs" / "model.safetensors").unlink()  # a link that leads nowhere
    assert "holds no weights" in refused(tmp_path / "snapshot")


@pytest.mark.parametrize("value", ["512", None, [1], {"a": 1}, -3])
def test_settings_that_no_t5_reads_do_no_harm(value: Any, write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False)
    whole = logits(pretrained.load(str(tmp_path)))
    edit_config(tmp_path, n_positions=value, task_specific_params=value, pruned_heads=value, made_up=value)
    assert torch.equal(logits(pretrained.load(str(tmp_path))), whole)

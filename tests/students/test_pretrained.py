"""Pretrained T5s: original and v1.1 load as they are meant, also after saving; the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill import students
from cotdistill.common.errors import UserError
from cotdistill.config.models import StudentEntry
from cotdistill.data.tokenizers import load_tokenizer
from cotdistill.students import pretrained

Write = Callable[..., dict[str, torch.Tensor]]
tied_or_not = pytest.mark.parametrize("tied", [True, False], ids=["original", "v1.1"])
IDS = torch.tensor([[5, 9, 30, 1], [7, 1, 0, 0]])


def logits(model: Any) -> torch.Tensor:
    fields = {"input_ids": IDS, "attention_mask": (IDS > 0).long(), "decoder_input_ids": IDS.flip(1)}
    with torch.no_grad():
        return model.eval()(**fields).logits


def expected_logits(model: Any, tensors: dict[str, torch.Tensor], tied: bool) -> torch.Tensor:
    """The output layer by hand, from the tensors on disk."""
    with torch.no_grad():
        mask = (IDS > 0).long()
        encoded = model.eval().encoder(input_ids=IDS, attention_mask=mask).last_hidden_state
        hidden = model.decoder(
            input_ids=IDS.flip(1), encoder_hidden_states=encoded, encoder_attention_mask=mask
        ).last_hidden_state
    return hidden * 16**-0.5 @ tensors["shared.weight"].T if tied else hidden @ tensors["lm_head.weight"].T


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith("student '") and "\n" not in message
    return message


@tied_or_not
def test_loads_as_the_checkpoint_says_and_again_after_saving(
    tied: bool, write_checkpoint: Write, tmp_path: Path
):
    from transformers import AutoModelForSeq2SeqLM

    tensors = write_checkpoint(tmp_path / "hub", tied)
    tokenizer = pretrained.fetch(str(tmp_path / "hub"))
    model = pretrained.load(str(tmp_path / "hub"))
    first = logits(model)
    students.save(model, tokenizer, tmp_path / "saved")
    again = students.load_saved(tmp_path / "saved")
    students.save(again, tokenizer, tmp_path / "twice")
    models = [model, again, students.load_saved(tmp_path / "twice"),
              AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved")]  # fmt: skip
    for loaded in models:
        assert (loaded.lm_head.weight is loaded.shared.weight) == tied
        assert loaded.config.scale_decoder_outputs == tied
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded.shared.weight, tensors["shared.weight"])
        expected = expected_logits(loaded, tensors, tied)
        torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits(loaded), first, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "saved/config.json").read_text())["tie_word_embeddings"] is tied


def test_half_precision_weights_come_out_in_float32(write_checkpoint: Write, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    write_checkpoint(tmp_path, False, dtype="bfloat16")
    tensors = load_file(tmp_path / "model.safetensors")
    halves = {name: value.bfloat16() for name, value in tensors.items()}
    save_file(halves, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert pretrained.load(str(tmp_path)).dtype == torch.float32


def test_dropout_is_the_checkpoints(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False, dropout_rate=0.25)
    assert pretrained.load(str(tmp_path)).config.dropout_rate == 0.25


def test_the_tokenizer_of_a_hub_checkpoint_serves(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path / "hub", False)
    entry = StudentEntry(name="hub", pretrained=str(tmp_path / "hub"))
    tokenizer = students.make_tokenizer(entry, [], tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    text = "ann paints the cup dark blue"
    assert tokenizer(text)["input_ids"] == again(text)["input_ids"]
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == text
    assert (again.pad_token_id, again.eos_token_id, again.unk_token_id) == (0, 1, 2)


def test_a_folder_of_another_model_is_refused(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False, model_type="bert")
    for call in (pretrained.load, pretrained.fetch):
        assert "a model of type 'bert'; expected 't5'" in refused(lambda call=call: call(str(tmp_path)))


def test_a_folder_without_config_is_refused(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, True)
    (tmp_path / "config.json").unlink()
    for call in (pretrained.load, pretrained.fetch):
        assert "config.json is missing" in refused(lambda call=call: call(str(tmp_path)))


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_truncated_weights_are_refused(write_checkpoint: Write, tmp_path: Path, keep: float):
    write_checkpoint(tmp_path, False)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    assert "checkpoint does not load" in refused(lambda: pretrained.load(str(tmp_path)))


@pytest.mark.parametrize(
    ("tied", "lost", "named"),
    [
        (False, "decoder.final_layer_norm.weight", "lacks 1 weights, first 'decoder.final_layer_norm."),
        (True, "decoder.final_layer_norm.weight", "lacks 1 weights, first 'decoder.final_layer_norm."),
        (True, "shared.weight", "lacks 1 weights, first 'shared.weight'"),
        # transformers ties what is missing of an untied pair and reports nothing
        (False, "shared.weight", "lacks 1 weights, first 'shared.weight'"),
        (False, "lm_head.weight", "lacks 1 weights, first 'lm_head.weight'"),
    ],
)
def test_a_missing_weight_is_refused(
    write_checkpoint: Write, tmp_path: Path, tied: bool, lost: str, named: str
):
    from safetensors.torch import save_file

    tensors = write_checkpoint(tmp_path, tied)
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert named in refused(lambda: pretrained.load(str(tmp_path)))


def test_a_checkpoint_without_weights_is_refused(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False)
    (tmp_path / "model.safetensors").unlink()
    assert "holds no weights" in refused(lambda: pretrained.load(str(tmp_path)))


def test_weights_of_another_shape_are_refused(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False, d_ff=64)
    said = refused(lambda: pretrained.load(str(tmp_path)))
    assert "has shape [32, 16]; expected [64, 16] by config.json" in said


def test_a_config_that_is_no_json_is_refused(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False)
    (tmp_path / "config.json").write_text('{"model_type": "t5"')
    with pytest.raises(UserError, match="not valid JSON"):
        pretrained.load(str(tmp_path))


@pytest.mark.parametrize(("name", "pad"), [("other pad", "</s>"), ("no pad", None)])
def test_a_tokenizer_without_the_needed_tokens_is_refused(
    write_checkpoint: Write, tmp_path: Path, name: str, pad: str | None, monkeypatch: Any
):
    write_checkpoint(tmp_path / "hub", False)
    tokenizer = pretrained.fetch(str(tmp_path / "hub"))
    tokenizer.pad_token = pad
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: tokenizer)
    entry = StudentEntry(name="hub", pretrained=str(tmp_path / "hub"))
    message = refused(lambda: students.make_tokenizer(entry, [], tmp_path / "tokenizer"))
    assert f"its tokenizer has pad_token {pad!r}; expected '<pad>'" in message


def test_a_folder_without_a_tokenizer_is_refused(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False)
    (tmp_path / "spiece.model").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    entry = StudentEntry(name="hub", pretrained=str(tmp_path))
    message = refused(lambda: students.make_tokenizer(entry, [], tmp_path / "tokenizer"))
    assert "holds no tokenizer: expected tokenizer.json or spiece.model" in message


def test_a_broken_tokenizer_file_is_refused(write_checkpoint: Write, tmp_path: Path):
    write_checkpoint(tmp_path, False)
    (tmp_path / "spiece.model").write_bytes(b"\x0a\xff\xff")
    assert "its tokenizer does not load" in refused(lambda: pretrained.fetch(str(tmp_path)))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "nowhere", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name: str):
    for call in (pretrained.load, pretrained.fetch):
        assert "no such folder" in refused(lambda call=call: call(name))


def test_a_hub_student_that_is_not_cached_is_refused_without_network(monkeypatch: Any, tmp_path: Path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refused(lambda: pretrained.load("google/t5-v1_1-small"))
    assert "could not be found in the local cache (run `cotdistill prepare` first)" in message
    assert "could not be fetched from the hub" in refused(lambda: pretrained.fetch("google/t5-v1_1-small"))


def test_fewer_embeddings_than_tokens_are_refused(write_checkpoint: Write, tiny: Any, tmp_path: Path):
    write_checkpoint(tmp_path / "hub", False)
    run = tiny.run(tmp_path, student={"name": "hub", "pretrained": str(tmp_path / "hub")})
    manifest = {"student": students.describe_source(run.student), "vocabulary": 192}
    assert students.load(run.student, manifest, run.repetition).config.vocab_size == 192
    manifest["vocabulary"] = 193
    assert "192 embeddings for 193 tokens" in refused(
        lambda: students.load(run.student, manifest, run.repetition)
    )


def test_other_weights_than_were_prepared_are_refused(write_checkpoint: Write, tiny: Any, tmp_path: Path):
    from safetensors.torch import save_file

    tensors = write_checkpoint(tmp_path / "hub", False)
    run = tiny.run(tmp_path, student={"name": "hub", "pretrained": str(tmp_path / "hub")})
    manifest = {"student": students.describe_source(run.student), "vocabulary": 192}
    assert manifest["student"]["revision"] is None
    assert {"config.json", "model.safetensors", "spiece.model"} <= set(manifest["student"]["files"])
    tensors["shared.weight"] += 1
    save_file(tensors, tmp_path / "hub" / "model.safetensors", metadata={"format": "pt"})
    message = refused(lambda: students.load(run.student, manifest, run.repetition))
    assert "model.safetensors is not what was prepared; run `cotdistill prepare` again" in message


def test_a_hub_student_is_pinned_to_the_commit_that_was_prepared(
    write_checkpoint: Write, tiny: Any, tmp_path: Path, monkeypatch: Any
):
    """The hub's main branch moves on: a run that was prepared before loads the commit of then."""
    import huggingface_hub

    for commit in ("a" * 40, "b" * 40):
        tensors = write_checkpoint(tmp_path / "snapshots" / commit, False)
    main, asked = ["a" * 40], []

    def download(name: str, revision: str | None, **more: Any) -> str:
        asked.append(revision)
        return str(tmp_path / "snapshots" / (revision or main[0]))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    run = tiny.run(tmp_path, student={"name": "hub", "pretrained": "some/student"})
    manifest = {"student": students.describe_source(run.student), "vocabulary": 192}
    assert manifest["student"]["revision"] == "a" * 40
    main[0] = "b" * 40
    model = students.load(run.student, manifest, run.repetition)
    assert set(asked[1:]) == {"a" * 40}
    assert torch.equal(model.shared.weight, tensors["shared.weight"])


@tied_or_not
def test_trains_and_evaluates_from_a_local_folder(
    tied: bool, write_checkpoint: Write, tiny: Any, tmp_path: Path, history: Callable[..., Any]
):
    from cotdistill.jobs.evaluate import evaluate
    from cotdistill.jobs.prepare import prepare
    from cotdistill.jobs.train import train

    tensors = write_checkpoint(tmp_path / "hub", tied)
    student = {"name": "hub", "pretrained": str(tmp_path / "hub")}
    run = type(tiny)(tiny.data).run(tmp_path, "mi", student=student, steps=6, eval_every=3)
    prepare(run.experiment, run.dataset, run.student, run.prepared)
    train(run)
    metrics = evaluate(run)
    assert metrics.published.step == 6 and metrics.strict.test_n == 8
    model = students.load_saved(run.folder / "model_last")
    assert (model.lm_head.weight is model.shared.weight) == tied
    assert not torch.equal(model.shared.weight, tensors["shared.weight"]), "it learned"
    assert all(line["loss/total"] > 0 for line in history(run) if "loss/total" in line)

"""What no job could load is refused while preparing, in one line; code in a checkpoint is never run."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.students import pretrained
from tests.students.checkpoints import edit_config, edit_tensors, refused, to_pickle

Write = Callable[..., dict[str, torch.Tensor]]
Edit = Callable[[Path], Any]


def shard(folder: Path) -> Path:
    """Save a checkpoint again in several files; return one of them."""
    from transformers import T5ForConditionalGeneration

    T5ForConditionalGeneration.from_pretrained(folder).save_pretrained(folder, max_shard_size="2KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return sorted(folder.glob("model-*.safetensors"))[0]


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    shard(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 7])


def set_value(name: str, value: float) -> Edit:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[3] = value

    return lambda folder: edit_tensors(folder, change)


def cut_pickle(folder: Path) -> None:
    to_pickle(folder, several=False)
    cut(folder / "pytorch_model.bin")


def quantise(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(torch.int8) if "SelfAttention.q" in name else value
            for name, value in tensors.items()}  # fmt: skip


def more_layers(tensors: dict[str, torch.Tensor]) -> None:
    """A deeper model's tensors beside a config of one layer: transformers would drop them without a word."""
    block = {name: value for name, value in tensors.items() if ".block.0." in name}
    tensors.update({name.replace(".block.0.", ".block.1."): value + 0 for name, value in block.items()})


def as_adapter(folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


def encoder_only(folder: Path) -> None:
    from transformers import T5EncoderModel

    T5EncoderModel.from_pretrained(folder).save_pretrained(folder)


def of_bart(folder: Path) -> None:
    """A tokenizer with T5's special tokens, at other ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a"])}
    made = Tokenizer(models.WordLevel(words, "<unk>"))
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "spiece.model").unlink()
    PreTrainedTokenizerFast(tokenizer_object=made, **tokens).save_pretrained(folder)


def of_bert(folder: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2}, "[UNK]"))
    (folder / "spiece.model").unlink()
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]").save_pretrained(folder)


FAULTS: dict[str, tuple[Edit, str]] = {
    "missing shard": (lambda folder: shard(folder).unlink(), "lacks model-00001-of-"),
    "index of nothing": (
        lambda folder: edit_index(folder, lambda index: index["weight_map"].update(a="gone.safetensors")),
        "lacks gone.safetensors, which model.safetensors.index.json names"),
    "index of elsewhere": (
        lambda folder: edit_index(folder, lambda index: index["weight_map"].update(a="../other.safetensors")),
        "names '../other.safetensors'; expected files of its own folder"),
    "index without map": (
        lambda folder: edit_index(folder, lambda index: index.pop("weight_map")), "expected `weight_map`"),
    "truncated": (lambda folder: cut(folder / "model.safetensors"), "checkpoint does not load: "),
    "truncated shard": (lambda folder: cut(shard(folder)), "checkpoint does not load: "),
    "truncated pickle": (cut_pickle, "pytorch_model.bin"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    "small vocabulary": (
        lambda folder: (edit_config(folder, vocab_size=100), edit_tensors(folder, lambda tensors: {
            name: value[:100].clone() if value.shape[0] == 192 else value for name, value in tensors.items()
        })), "100 embeddings for 144 tokens"),
    "wrong d_model": (
        lambda folder: edit_config(folder, d_model=24), "has shape [8, 16]; expected [8, 24] by config.json"),
    "wrong d_ff": (lambda folder: edit_config(folder, d_ff=64), "expected [64, 16] by config.json"),
    "wrong heads": (lambda folder: edit_config(folder, num_heads=4, d_kv=2),
                    "relative_attention_bias.weight'"),
    "deeper": (lambda folder: edit_tensors(folder, more_layers),
               "1 layers in the encoder; the checkpoint stores 2"),
    "shallower": (lambda folder: edit_config(folder, num_layers=10**9), "1000000000 layers in the encoder"),
    "another's tensor": (
        lambda folder: edit_tensors(folder, lambda tensors: tensors.update(extra=torch.ones(2))),
        "'extra' is no tensor of the T5"),
    "dropout null": (lambda folder: edit_config(folder, dropout_rate=None),
                     "dropout_rate: found null; expected"),
    "dropout text": (lambda folder: edit_config(folder, dropout_rate="0.1"), "dropout_rate"),
    "dropout NaN": (lambda folder: edit_config(folder, dropout_rate=float("nan")), "dropout_rate: found nan"),
    "epsilon": (lambda folder: edit_config(folder, layer_norm_epsilon=-1e-6),
                "layer_norm_epsilon: found -1e-06"),
    "size text": (lambda folder: edit_config(folder, d_model="16"), "d_model"),
    "size true": (lambda folder: edit_config(folder, num_heads=True), "num_heads"),
    "size 0": (lambda folder: edit_config(folder, d_kv=0), "d_kv: found 0; expected a whole number from 1"),
    "activation": (lambda folder: edit_config(folder, feed_forward_proj="gated-magic"), "magic"),
    "ungated": (lambda folder: edit_config(folder, feed_forward_proj="relu"), "checkpoint lacks"),
    "start token": (
        lambda folder: edit_config(folder, decoder_start_token_id=192), "decoder_start_token_id: found 192"),
    "flag": (lambda folder: edit_config(folder, tie_word_embeddings="no"), "tie_word_embeddings: found 'no'"),
    "encoder only": (encoder_only, "stores an encoder alone; expected a T5 with its decoder"),
    "NaN": (set_value("decoder.final_layer_norm.weight", float("nan")),
            "'decoder.final_layer_norm.weight' has 1 values that are NaN or infinite"),
    "infinity": (set_value("shared.weight", float("-inf")), "'shared.weight' has 1 values that are NaN"),
    "fp16 overflow": (
        lambda folder: edit_tensors(folder, lambda tensors: {
            name: (1e6 * value).half() if name == "lm_head.weight" else value
            for name, value in tensors.items()
        }), "'lm_head.weight' has"),
    "quantised": (lambda folder: edit_tensors(folder, quantise), "is of type I8 (a quantised checkpoint?)"),
    "quantised by config": (
        lambda folder: edit_config(folder, quantization_config={"load_in_4bit": True}),
        "quantization_config"),
    "adapter": (as_adapter, "is an adapter (LoRA), no whole model"),
    "adapter beside": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "is an adapter (LoRA), no whole model"),
    "two embeddings": (
        lambda folder: edit_tensors(folder, lambda tensors: tensors.update(
            {"decoder.embed_tokens.weight": tensors["shared.weight"] + 1})),
        "'decoder.embed_tokens.weight' differs from 'shared.weight'"),
    "tokenizer of BART": (of_bart,
                          "its tokenizer has pad_token_id 1, the checkpoint 0: it is another model's"),
    "tokenizer of BERT": (of_bert, "its tokenizer has pad_token '[PAD]'; expected '<pad>'"),
    "no JSON object": (lambda folder: (folder / "config.json").write_text("[]"), "type None; expected 't5'"),
    "cut config": (lambda folder: (folder / "config.json").write_text('{"model'), "not valid JSON"),
    "a folder for a file": (
        lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()),
        "config.json is missing"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_no_job_could_load_is_refused_while_preparing(
    fault: str, write_checkpoint: Write, tmp_path: Path
):
    write_checkpoint(tmp_path, False)
    change, words = FAULTS[fault]
    change(tmp_path)
    assert words in refused(tmp_path)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("how", ["zip", "old", "plain pickle", "shard"])
def test_code_in_a_file_of_weights_is_refused_and_never_run(
    how: str, write_checkpoint: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder, sprung = tmp_path / "hub", tmp_path / "sprung"
    state: dict[str, Any] = write_checkpoint(folder, False)
    (folder / "model.safetensors").unlink()
    state["trap"] = Trap(sprung)
    file = folder / "pytorch_model.bin"
    if how == "plain pickle":
        file.write_bytes(pickle.dumps({"trap": Trap(sprung)}))
    elif how == "shard":
        torch.save(state, folder / "pytorch_model-1.bin")
        index = {"weight_map": {"trap": "pytorch_model-1.bin"}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=how == "zip")
    assert "holds more than tensors (code, which was not run)" in refused(folder)
    with pytest.raises(UserError, match="which was not run"):
        pretrained.load(str(folder))
    assert not sprung.exists()


def test_code_that_a_config_names_is_never_run(write_checkpoint: Write, tmp_path: Path):
    folder, sprung = tmp_path / "hub", tmp_path / "sprung"
    write_checkpoint(folder, False)
    for name in ("modeling", "tokenizing"):
        (folder / f"{name}.py").write_text(f"import os\nos.mkdir({str(sprung)!r})\nclass Own: pass\n")
    edit_config(folder, auto_map={"AutoConfig": "modeling.Own", "AutoModelForSeq2SeqLM": "modeling.Own"})
    path = folder / "tokenizer_config.json"
    named = {"AutoTokenizer": ["tokenizing.Own", "tokenizing.Own"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": named}))
    pretrained.fetch(str(folder))
    pretrained.load(str(folder))
    path.write_text(json.dumps({"tokenizer_class": "Own", "auto_map": named}))  # and T5's own is not named
    with contextlib.suppress(UserError):
        pretrained.fetch(str(folder))
    assert not sprung.exists()


def test_a_folder_that_cannot_be_read_is_named(
    write_checkpoint: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Root may read all, so the refusal of the operating system is made here."""
    write_checkpoint(tmp_path, False)
    plain = Path.is_file

    def forbidden(path: Path) -> bool:
        if path.parent == tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(Path, "is_file", forbidden)
    assert "config.json: Permission denied" in refused(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_config_ends_in_anything_but_one_line(data: Any, write_checkpoint: Write, tmp_path: Path):
    """Any value of any setting either loads, or is refused by preparing; training says the same."""
    folder = tmp_path / "hub"
    write_checkpoint(folder, False)
    strange = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**30), st.floats(), st.text(max_size=9),
                        st.lists(st.integers(0, 3), max_size=2), st.just({}))  # fmt: skip
    key = data.draw(
        st.sampled_from(sorted([*json.loads((folder / "config.json").read_text()), "hidden_size"]))
    )
    edit_config(folder, **{key: data.draw(strange)})
    outcomes = []
    for call in (lambda name: pretrained.find_checkpoint(name).check_values(), pretrained.load):
        try:
            call(str(folder))
            outcomes.append("")
        except UserError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1] and "\n" not in outcomes[0]


def test_a_job_fails_on_nothing_that_preparing_did_not_say(
    write_checkpoint: Write, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The command itself: one line, and nothing half-written."""
    from cotdistill.cli import main

    write_checkpoint(tmp_path / "hub", False)
    set_value("shared.weight", float("nan"))(tmp_path / "hub")
    student = {"name": "hub", "pretrained": str(tmp_path / "hub")}
    config, run = type(tiny)(tiny.data).config_file(tmp_path, student=student)
    code = main(["prepare", "--config", str(config), "--dataset", "colours", "--student", "hub"])
    said = capsys.readouterr().err.strip()
    assert code == 1 and said.startswith("error: student '") and "'shared.weight' has 1 values" in said
    assert "\n" not in said and not run.prepared.exists()
    assert list(run.prepared.parent.glob(".*")) == []

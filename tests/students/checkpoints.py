"""What tests of checkpoints do to a folder: edit its config, its tensors, the kind of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cotdistill import students
from cotdistill.common.errors import UserError
from cotdistill.config.models import StudentEntry

IDS = torch.tensor([[5, 9, 30, 1], [7, 1, 0, 0]])


def logits(model: Any) -> torch.Tensor:
    fields = {"input_ids": IDS, "attention_mask": (IDS > 0).long(), "decoder_input_ids": IDS.flip(1)}
    with torch.no_grad():
        return model.eval()(**fields).logits


def generated(model: Any) -> torch.Tensor:
    return model.eval().generate(IDS, attention_mask=(IDS > 0).long(), max_new_tokens=6, do_sample=False)


def edit_config(folder: Path, drop: tuple[str, ...] = (), **changes: Any) -> None:
    path = folder / "config.json"
    found = {key: value for key, value in json.loads(path.read_text()).items() if key not in drop}
    path.write_text(json.dumps({**found, **changes}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    changed = change(tensors)
    save_file(changed if isinstance(changed, dict) else tensors, folder / "model.safetensors")


def to_pickle(folder: Path, several: bool) -> None:
    """The weights as torch.save writes them, in one file or a few, in place of safetensors."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(folder)
    state = dict(model.state_dict())  # with lm_head.weight and both copies of the embeddings, as on the hub
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    if not several:
        torch.save(state, folder / "pytorch_model.bin")
        return
    weight_map = {
        name: f"pytorch_model-{1 + number % 3}-of-3.bin" for number, name in enumerate(sorted(state))
    }
    for shard in set(weight_map.values()):
        torch.save({name: state[name] for name in state if weight_map[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def refused(folder: Path) -> str:
    """The one line with which preparing refuses a student; training does too, but for the tokenizer's."""
    entry = StudentEntry(name="hub", pretrained=str(folder))
    with pytest.raises(UserError) as caught:
        students.make_tokenizer(entry, [], folder / "made")
    assert not (folder / "made").exists()
    message = str(caught.value)
    assert message.startswith(f"student '{folder}': ") and "\n" not in message and len(message) < 600
    return message

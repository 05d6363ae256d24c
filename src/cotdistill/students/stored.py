"""Read the tensors that a checkpoint's folder stores, one at a time, and never run what a file may hold."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError, describe_error, list_some
from cotdistill.common.files import read_json

if TYPE_CHECKING:
    import torch

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""the files of a checkpoint's weights, the preferred one first; `<file>.index.json` names shards"""
FLOATS = ("F64", "F32", "F16", "BF16")
"""types of plain weights, as safetensors names them: others are of quantised checkpoints"""


def find_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights. Raises UserError where one is missing."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_index(index)
    raise UserError(f"{folder} holds no weights; expected {' or '.join(WEIGHTS)}")


def _read_index(index: Path) -> list[Path]:
    found = read_json(index)
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} cannot be read: expected `weight_map`, the file of each tensor")
    shards = sorted({str(shard) for shard in weight_map.values()})
    outside = [shard for shard in shards if Path(shard).name != shard]
    if outside:
        raise UserError(f"{index} names '{outside[0]}'; expected files of its own folder")
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise UserError(
            f"{index.parent} lacks {list_some(missing, 3)}, which {index.name} names; fetch or copy it again"
        )
    return [index.parent / shard for shard in shards]


@dataclass(frozen=True)
class Header:
    """What is known of a tensor without its values."""

    shape: tuple[int, ...]
    kind: str
    """its type, such as F32 or BF16"""
    file: Path


class Stored:
    """The tensors of a checkpoint's folder by name. Values are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Read the headers. Raises UserError for what is missing, cut off, or holds more than tensors."""
        self.headers: dict[str, Header] = {}
        self._open: dict[Path, Any] = {}
        for file in find_files(folder):
            read = _read_safetensors if file.suffix == ".safetensors" else _read_pickled
            try:
                self._open[file], headers = read(file)
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 a corrupt file raises whatever its reader raises
                raise UserError(
                    f"checkpoint does not load: {file} cannot be read ({describe_error(error)}); "
                    "it may be truncated: fetch or copy it again"
                ) from error
            self.headers.update(headers)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor's values, as they are stored; to be copied before they are changed."""
        tensors = self._open[self.headers[name].file]
        tensor: torch.Tensor = tensors[name] if isinstance(tensors, dict) else tensors.get_tensor(name)
        return tensor


def _read_safetensors(file: Path) -> tuple[Any, dict[str, Header]]:
    from safetensors import safe_open

    opened = safe_open(file, framework="pt")
    headers = {}
    for name in opened.keys():  # noqa: SIM118 no mapping
        part = opened.get_slice(name)
        headers[name] = Header(tuple(part.get_shape()), str(part.get_dtype()), file)
    return opened, headers


def _read_pickled(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Header]]:
    """Read a file of torch.save: tensors alone are unpickled, code in it is refused and never run."""
    import pickle

    import torch

    try:
        # only the format of today can be mapped into memory
        tensors = torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file) or None)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} is cut off, or holds more than tensors (code, which was not run); "
            "expected weights alone, best as model.safetensors"
        ) from error
    kinds = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    if not isinstance(tensors, dict):
        raise UserError(f"{file} holds a {type(tensors).__name__}; expected tensors by name")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UserError(f"{file} holds {name!r}, a {type(value).__name__}; expected tensors by name")
    return dict(tensors), {
        name: Header(tuple(value.shape), kinds.get(value.dtype, str(value.dtype)), file)
        for name, value in tensors.items()
    }

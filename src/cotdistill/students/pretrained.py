"""A pretrained T5 (original, v1.1, flan) from the hub or a folder, checked for what T5 loading gets wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError, describe_error
from cotdistill.common.files import hash_file, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

FILES = ["*.json", "*.model", "*.safetensors", "pytorch_model*.bin"]
"""what a T5 repository on the hub is fetched for; other frameworks' weights are left out"""
TOKENIZERS = ("tokenizer.json", "spiece.model")
"""the files that hold a T5's pieces; one is enough"""


def fetch(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Fetch checkpoint and tokenizer of `name` into the cache; return the tokenizer. Raises UserError."""
    folder = _find_folder(name, revision, fetch=True)
    _read_config(folder, name)
    if not any(Path(folder, file).is_file() for file in TOKENIZERS):
        # transformers would make up a tokenizer of nothing but special tokens
        raise UserError(f"student '{name}': {folder} holds no tokenizer: expected {' or '.join(TOKENIZERS)}")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 a broken tokenizer raises almost anything
        why = describe_error(error)
        raise UserError(f"student '{name}': its tokenizer does not load ({why})") from error


def load(name: str, revision: str | None = None) -> T5ForConditionalGeneration:
    """Return the model in `name` (hub id in the cache, or local folder), float32, dropout as configured.

    Raises UserError when it is not a T5, when weights are missing or corrupt, and when the loaded output
    layer is not as the checkpoint says (tied to the embeddings and scaled, or neither).
    """
    folder = _find_folder(name, revision, fetch=False)
    config = _read_config(folder, name)
    import torch
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, report = T5ForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # noqa: BLE001 a corrupt file raises whatever its reader raises
        raise UserError(f"student '{name}': checkpoint does not load ({describe_error(error)})") from error
    missing = [key for key in report["missing_keys"] if not key.endswith("embed_tokens.weight")]
    tied = config.get("tie_word_embeddings", True) is not False
    missing = [key for key in missing if not (tied and key == "lm_head.weight")]
    if missing:
        raise UserError(f"student '{name}': checkpoint lacks {len(missing)} weights, first '{missing[0]}'")
    if tied != (model.lm_head.weight is model.shared.weight) or tied != model.config.scale_decoder_outputs:
        raise UserError(
            f"student '{name}': the config says tie_word_embeddings={tied}, the loaded model is "
            f"{'tied' if model.lm_head.weight is model.shared.weight else 'untied'} with "
            f"scale_decoder_outputs={model.config.scale_decoder_outputs}"
        )
    return model


def describe(name: str, revision: str | None = None) -> dict[str, Any]:
    """Return the checkpoint's name, the hub's commit (None for a folder) and its files' SHA-256.

    Fetches it where it is not in the cache.
    """
    folder = Path(_find_folder(name, revision, fetch=True))
    # the cache keeps a snapshot under the name of its commit
    commit = None if Path(name).is_dir() else folder.name
    return {"pretrained": name, "revision": commit, "files": _hash_files(folder)}


def check_source(name: str, source: Mapping[str, Any]) -> None:
    """Raise UserError where the checkpoint's files are not those that `describe` saw.

    source: what `describe` returned.
    """
    folder = Path(_find_folder(name, source["revision"], fetch=False))
    found, expected = _hash_files(folder), source["files"]
    changed = sorted({file for file, _ in found.items() ^ expected.items()})
    if changed:
        raise UserError(
            f"student '{name}': {folder / changed[0]} is not what was prepared; "
            "run `cotdistill prepare` again"
        )


def _hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a student is loaded from, by name."""
    paths = {path for pattern in FILES for path in folder.glob(pattern)}
    return {path.name: hash_file(path) for path in sorted(paths)}


def _find_folder(name: str, revision: str | None, fetch: bool) -> str:
    """Return the local folder of a student: its own, or the hub's snapshot.

    fetch: download what is missing; without it only the cache is looked at.
    """
    if Path(name).is_dir():
        return name
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise UserError(f"student '{name}': no such folder (and not a hub id of the form owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(
            name, revision=revision, allow_patterns=FILES, local_files_only=not fetch
        )
    except Exception as error:  # noqa: BLE001 network, permission, revision: one line for all
        how = "fetched from the hub" if fetch else "found in the local cache (run `cotdistill prepare` first)"
        raise UserError(f"student '{name}': could not be {how} ({describe_error(error)})") from error


def _read_config(folder: str, name: str) -> dict[str, Any]:
    path = Path(folder, "config.json")
    if not path.is_file():
        raise UserError(f"student '{name}': {path} is missing: expected a T5 checkpoint folder")
    config = read_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "t5":
        raise UserError(f"student '{name}': {path} is a model of type {kind!r}; expected 't5'")
    return config


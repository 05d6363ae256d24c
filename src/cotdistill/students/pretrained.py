"""A pretrained T5 (original, v1.1, flan) from the hub or a folder, checked before any job needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError, describe_error
from cotdistill.common.files import hash_file
from cotdistill.students.checkpoint import Checkpoint
from cotdistill.students.tokens import check_special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

FILES = ["*.json", "*.model", "*.safetensors", "pytorch_model*.bin"]
"""what a T5 repository on the hub is fetched for; other frameworks' weights are left out"""
TOKENIZERS = ("tokenizer.json", "spiece.model")
"""the files that hold a T5's pieces; one is enough"""


def fetch(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Fetch checkpoint and tokenizer of `name` into the cache; return the tokenizer.

    Raises UserError for all that a training job would refuse of them; see `check_folder`.
    """
    return check_folder(Path(_find_folder(name, revision, fetch=True)), name)


def check_folder(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """Check a student's folder as a whole, weights and tokenizer; return the tokenizer.

    Reads one tensor at a time. name: what messages call the student. Raises UserError for what `load`
    refuses, for weights that are not finite, and for a tokenizer that is not the checkpoint's.
    """
    checkpoint = Checkpoint(folder, name)
    if not any((folder / file).is_file() for file in TOKENIZERS):
        # transformers would make up a tokenizer of nothing but special tokens
        raise UserError(f"student '{name}': {folder} holds no tokenizer: expected {' or '.join(TOKENIZERS)}")
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001 a broken tokenizer raises almost anything
        why = describe_error(error)
        raise UserError(f"student '{name}': its tokenizer does not load ({why})") from error
    _check_tokenizer(tokenizer, checkpoint)
    checkpoint.check_values()
    return tokenizer


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
    """Raise UserError for a tokenizer without T5's tokens, or one that is not this checkpoint's."""
    check_special_tokens(tokenizer, checkpoint.name)
    for role in ("pad_token_id", "eos_token_id"):
        ours, its = getattr(tokenizer, role), getattr(checkpoint.config, role)
        if ours != its:
            raise UserError(
                f"student '{checkpoint.name}': its tokenizer has {role} {ours}, the checkpoint {its}: "
                "it is another model's"
            )
    check_vocabulary(checkpoint, len(tokenizer))


def check_vocabulary(checkpoint: Checkpoint, tokens: int) -> None:
    """Raise UserError where the checkpoint has fewer embeddings than its tokenizer has tokens."""
    embeddings = checkpoint.config.vocab_size
    if embeddings < tokens:
        raise UserError(f"student '{checkpoint.name}': {embeddings} embeddings for {tokens} tokens")


def find_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint `name` (hub id in the cache, or local folder), its config and headers checked.

    Raises UserError when it is not one whole T5 of plain weights.
    """
    return Checkpoint(Path(_find_folder(name, revision, fetch=False)), name)


def load(name: str, revision: str | None = None) -> T5ForConditionalGeneration:
    """Return the model in `name`, float32, dropout as configured. Raises UserError as `find_checkpoint`."""
    return find_checkpoint(name, revision).build()


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
        return snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=not fetch)
    except Exception as error:  # noqa: BLE001 network, permission, revision: one line for all
        how = "fetched from the hub" if fetch else "found in the local cache (run `cotdistill prepare` first)"
        raise UserError(f"student '{name}': could not be {how} ({describe_error(error)})") from error

"""Load a tokenizer from a folder that this package wrote; texts to token ids, and back to texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError, describe_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer that preparing or `students.save` wrote to `folder`.

    Raises UserError when it does not load.
    """
    # the class itself, not AutoTokenizer, whose import takes in every model family
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 a broken tokenizer file raises almost anything
        raise UserError(f"{folder}: no tokenizer loads from here ({describe_error(error)})") from error


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, without special tokens around it, uncut."""
    # an empty list is an error to the tokenizer, and long texts are cut when tasks are put together
    ids: list[list[int]] = []
    if texts:
        ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def decode_texts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Any]) -> list[str]:
    """Return the text of each row of token ids, as answers are read: without special tokens, stripped."""
    if not rows:
        return []
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text.strip() for text in texts]

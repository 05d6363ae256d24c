"""Load a tokenizer from a folder that this package wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

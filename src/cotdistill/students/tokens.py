"""The special tokens that every student's tokenizer has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cotdistill.common.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
"""role -> token; NLI inputs join premise and hypothesis with the end token"""


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError where a tokenizer lacks one of the special tokens. name: what it calls the student."""
    for role, token in SPECIAL_TOKENS.items():
        found = getattr(tokenizer, role, None)
        if found != token:
            raise UserError(f"student '{name}': its tokenizer has {role} {found!r}; expected {token!r}")

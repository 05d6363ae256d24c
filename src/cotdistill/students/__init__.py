"""Students: a pretrained T5 from a hub or a folder, or one built from scratch.

`prepare` makes what all runs of a (dataset, student) pair share (the tokenizer, and the checkpoint in
the cache or the architecture); `load` gives one run its model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import atomic, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

    from cotdistill.config.models import StudentEntry
    from cotdistill.runs.grid import Run

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
"""the tokens every student needs; NLI inputs join premise and hypothesis with the end token"""


def prepare(student: StudentEntry, texts: Iterable[str], folder: Path) -> PreTrainedTokenizerBase:
    """Write the student's tokenizer to `folder` and return it.

    A scratch student's tokenizer is trained on `texts` (the training split's). A pretrained student's
    checkpoint is fetched into the local cache, so that training needs no network. Raises UserError for
    what is not a T5 or a tokenizer without the needed tokens.
    """
    from cotdistill.students import pretrained, scratch

    if student.scratch is not None:
        tokenizer: PreTrainedTokenizerBase = scratch.train_tokenizer(texts, student.scratch.vocabulary)
    else:
        tokenizer = pretrained.fetch(str(student.pretrained))
    for role, token in SPECIAL_TOKENS.items():
        if getattr(tokenizer, role, None) != token:
            raise UserError(
                f"student '{student.name}': its tokenizer has {role} {getattr(tokenizer, role, None)!r}; "
                f"expected {token!r}"
            )
    tokenizer.save_pretrained(folder)
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that `prepare` or `save` left in `folder`. Raises UserError when it does not load."""
    # the class itself, not AutoTokenizer, whose import takes in every model family
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 a broken tokenizer file raises almost anything
        raise UserError(f"{folder}: no tokenizer loads from here ({_first_line(error)})") from error


def load(run: Run, vocabulary: int) -> T5ForConditionalGeneration:
    """The run's student with its initial weights: equal for every method of one repetition.

    vocabulary: number of token ids of the pair's tokenizer. Raises UserError when the checkpoint is
    not a T5, is corrupt, or has fewer embeddings than the tokenizer has tokens.
    """
    from cotdistill.common.seeds import derive
    from cotdistill.students import pretrained, scratch

    if run.student.scratch is not None:
        seed = derive("initial weights", dataset=run.dataset.name, student=run.student.name, seed=run.seed)
        return scratch.build(run.student.scratch, vocabulary, seed)
    model = pretrained.load(str(run.student.pretrained))
    if model.config.vocab_size < vocabulary:
        raise UserError(
            f"student '{run.student.name}': {model.config.vocab_size} embeddings for {vocabulary} tokens"
        )
    return model


def save(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a `save_pretrained` folder that any transformers user can load, atomically."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with atomic(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        if model.lm_head.weight is not model.shared.weight:
            # transformers 5.23 writes tie_word_embeddings=True for every T5; on loading, this flag is
            # also what turns the scaling of a v1.1 student's outputs off
            config = read_json(part / "config.json")
            write_json(part / "config.json", {**config, "tie_word_embeddings": False})


def load_saved(folder: Path) -> T5ForConditionalGeneration:
    """The model that `save` left in `folder`. Raises UserError for a corrupt or foreign checkpoint."""
    from cotdistill.students import pretrained

    return pretrained.load(str(folder))


def _first_line(error: BaseException) -> str:
    text: Any = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:200]}"

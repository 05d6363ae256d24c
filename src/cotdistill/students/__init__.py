"""Students: a pretrained T5 from a hub or a folder, or one built from scratch.

`make_tokenizer` and `describe_source` are for preparing a (dataset, student) pair: they fetch a pretrained
student into the cache, so that training needs no network. `load` gives one run its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.files import atomic, read_json, write_json
from cotdistill.common.seeds import derive
from cotdistill.students import pretrained, scratch
from cotdistill.students.tokens import check_special_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

    from cotdistill.config.models import StudentEntry


def make_tokenizer(student: StudentEntry, texts: Iterable[str], folder: Path) -> PreTrainedTokenizerBase:
    """Write the student's tokenizer to `folder` and return it.

    A scratch student's tokenizer is trained on `texts`. A pretrained student is checked as a whole: raises
    UserError for what no job could load, so that none fails on what was known before.
    """
    if student.scratch is not None:
        tokenizer: PreTrainedTokenizerBase = scratch.train_tokenizer(texts, student.scratch.vocabulary)
        check_special_tokens(tokenizer, student.name)
    else:
        tokenizer = pretrained.fetch(str(student.pretrained), student.revision)
    tokenizer.save_pretrained(folder)
    return tokenizer


def describe_source(student: StudentEntry) -> dict[str, Any]:
    """Return where a student's initial weights are from, for the manifest of prepared data.

    Of a pretrained one, which is fetched: its name, the hub's commit (None for a folder) and the SHA-256 of
    each file. Empty for one from scratch, whose weights follow from seed and settings.
    """
    return {} if student.pretrained is None else pretrained.describe(student.pretrained, student.revision)


def load(
    student: StudentEntry, manifest: Mapping[str, Any], axes: Mapping[str, object]
) -> T5ForConditionalGeneration:
    """Return a student with its initial weights: equal for every method of one repetition.

    manifest: of the prepared pair. axes: dataset, student and seed, which decide a scratch student's weights.
    Raises UserError when the checkpoint is not a T5, is corrupt, has fewer embeddings than the tokenizer has
    tokens, or is not the one that was prepared.
    """
    vocabulary = int(manifest["vocabulary"])
    if student.scratch is not None:
        return scratch.build(student.scratch, vocabulary, derive("initial weights", **axes))
    source = manifest["student"]
    name = str(student.pretrained)
    pretrained.check_source(name, source)
    checkpoint = pretrained.find_checkpoint(name, source["revision"])
    pretrained.check_vocabulary(checkpoint, vocabulary)
    return checkpoint.build()


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
    """Return the model that `save` left in `folder`. Raises UserError for a corrupt or foreign checkpoint."""
    return pretrained.load(str(folder))

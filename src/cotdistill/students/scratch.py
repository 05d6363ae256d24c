"""A student from scratch: a small T5 with fresh weights and a tokenizer trained on the training text."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cotdistill.common.errors import UserError
from cotdistill.config.models import ScratchStudent
from cotdistill.students.tokens import SPECIAL_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration


def build(settings: ScratchStudent, vocabulary: int, seed: int) -> T5ForConditionalGeneration:
    """Return a T5 with gated GELU (as v1.1) and output embeddings tied and scaled (as the original).

    seed: of the weights. A v1.1 student built from a config would have tied embeddings that are not scaled,
    with initial logits of standard deviation sqrt(d_model); tied and scaled they start near 1.
    """
    import torch
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    config = T5Config(
        vocab_size=vocabulary,
        d_model=settings.d_model,
        d_ff=settings.d_ff,
        d_kv=settings.d_kv,
        num_heads=settings.heads,
        num_layers=settings.layers,
        dropout_rate=settings.dropout,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    assert model.lm_head.weight is model.shared.weight and model.config.scale_decoder_outputs
    return model


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a Unigram tokenizer with T5's special tokens, of at most `vocabulary` pieces.

    Digits are pieces of their own, so that numbers are read as they are written. The same texts give the same
    tokenizer: SentencePiece on one thread, over the distinct texts in sorted order (the trainer of the
    tokenizers library iterates hash maps, and differs from process to process). Raises UserError when the
    texts hold more distinct characters than the vocabulary allows.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    clean = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    end = SPECIAL_TOKENS["eos_token"]
    # the end token joins premise and hypothesis: it is no text to learn pieces from
    lines = sorted({clean.normalize_str(part) for text in texts for part in text.split(end)} - {""})
    tokenizer = Tokenizer(models.Unigram(_pieces(lines, vocabulary), unk_id=2))
    tokenizer.normalizer = clean
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def _pieces(lines: list[str], vocabulary: int) -> list[tuple[str, float]]:
    """Return pieces and log-probabilities learned by SentencePiece; ids 0, 1, 2 are T5's special tokens."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            character_coverage=1.0,
            split_digits=True,
            normalization_rule_name="identity",
            max_sentence_length=1_000_000,
            num_threads=1,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"no tokenizer of {vocabulary} pieces for this text: {error}") from error
    reader = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(reader.id_to_piece(i), reader.get_score(i)) for i in range(reader.get_piece_size())]

"""The special tokens that every student's tokenizer has."""

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
"""role -> token; NLI inputs join premise and hypothesis with the end token"""

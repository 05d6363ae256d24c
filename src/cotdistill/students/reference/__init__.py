"""The reference engine: transformers' own forward pass and generation, on padded batches.

Read `learning` first. It is right for every encoder-decoder of transformers' `AutoModelForSeq2SeqLM`; what
a model without an encoder needs otherwise is in `Passes.compute` and `Writer`. The model computes attention
as transformers chose when it was loaded (SDPA where the model has it).
"""

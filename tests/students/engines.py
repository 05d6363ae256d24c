"""Students for the tests of engines, and the plain ways that engines are held against."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from cotdistill.students.engines import ENGINES, make_learner, make_scorer, make_writer
from tests.methods import plain
from tests.methods.test_step import D, V, student

KINDS = [("gated-gelu", True), ("gated-gelu", False), ("relu", True), ("gated-silu", False)]
OTHERS = ("bart", "pegasus", "mt5", "t5gemma", "blenderbot")
each_engine = pytest.mark.parametrize("engine", ENGINES)


def make_other(kind: str, dropout: float = 0.0) -> Any:
    """An encoder-decoder that is no T5, tiny, with all that its family does to logits."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    torch.manual_seed(2)
    both = {"vocab_size": V, "tie_word_embeddings": True}
    if kind == "mt5":
        shape = {"d_model": D, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2,
                 "dropout_rate": dropout, "decoder_start_token_id": 0}  # fmt: skip
    elif kind == "t5gemma":
        module = {
            "vocab_size": V, "hidden_size": D, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
            "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 8, "pad_token_id": 0,
            "bos_token_id": 2, "eos_token_id": 1, "final_logit_softcapping": 2.0,
        }  # fmt: skip
        shape = {"encoder": module, "decoder": module, "dropout_rate": dropout}
    else:
        shape = {
            "d_model": D, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": dropout,
            "attention_dropout": dropout, "activation_dropout": dropout, "max_position_embeddings": 64,
        }  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **both, **shape)).train()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias = torch.randn(1, V)
    decoder = model.config.get_text_config(decoder=True)
    start = getattr(model.config, "decoder_start_token_id", None)
    start = decoder.bos_token_id if start is None else start

    def shift(labels: torch.Tensor) -> torch.Tensor:
        shifted = torch.cat([torch.full((len(labels), 1), start), labels[:, :-1]], 1)
        return shifted.masked_fill(shifted < 0, decoder.pad_token_id)

    model._shift_right = shift
    model.start_token = start
    return model


def compute(engine: str, model: Any, method: Any, given_: Any, **more: Any) -> tuple[dict[str, float], Any]:
    """An engine's terms and gradients."""
    model.zero_grad()
    if method.learned is not None:
        method.learned.zero_grad()
    found = make_learner(engine, model).add_gradients(given_, method, seed=1, **more)
    return {name: value.item() for name, value in found.items()}, plain.grads(model, method)


def assert_near(gradients: Any, expected: Any) -> None:
    for name, value in expected.items():
        assert (gradients[name] - value).norm() <= 1e-5 * value.norm() + 1e-8, name


def make_speaker(kind: str = "gated-gelu", tied: bool = True) -> Any:
    """A student whose answers differ from input to input; with dropout, which generation is not to draw."""
    model = student(kind, tied, dropout=0.4)
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    model.start_token = 0
    return model


def make_inputs(lengths: list[int] | None = None) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    lengths = lengths or [9, 9, 7, 4, 4, 2, 1, 1]
    return [torch.randint(3, V, (length,), generator=draw) for length in lengths]


def write(engine: str, model: Any, end: int, precision: str = "fp32") -> list[tuple[list[int], float]]:
    writer = make_writer(engine, model, precision)
    return writer.write(writer.read(make_inputs()), 20, end)


def find_end(written: list[tuple[list[int], float]]) -> int:
    """A token that ends the sequences at as many different steps as can be."""
    return max(range(V), key=lambda token: len({(*ids, token).index(token) for ids, _ in written}))


@torch.no_grad()
def log_likelihood(model: Any, ids: torch.Tensor, target: list[int]) -> float:
    """log p(target | input), by one full pass over one example."""
    training = model.training
    before = torch.tensor([[model.start_token, *target[:-1]]])
    logits = model.eval()(input_ids=ids[None], decoder_input_ids=before, use_cache=False).logits[0]
    model.train(training)
    logs = logits.double().log_softmax(-1)
    return float(logs[torch.arange(len(target)), torch.tensor(target)].sum())


@torch.no_grad()
def generate(model: Any, ids: torch.Tensor, longest: int, end: int) -> list[int]:
    """What transformers generates greedily for one input, without a checkpoint's own settings."""
    training, settings_ = model.training, model.generation_config
    model.generation_config = GenerationConfig(decoder_start_token_id=model.start_token, pad_token_id=0)
    found = model.eval().generate(
        input_ids=ids[None], max_new_tokens=longest, do_sample=False, num_beams=1, eos_token_id=end
    )
    model.generation_config = settings_
    model.train(training)
    return found[0, 1:].tolist()


def make_targets() -> list[list[list[int]]]:
    draw = torch.Generator().manual_seed(4)
    made = [torch.randint(3, V, (length,), generator=draw).tolist() for length in (4, 1, 3, 4, 2, 6)]
    shared = [made[0], [*made[0][:2], 1], [made[0][0], 9, 1]]  # options with equal beginnings
    return [shared, [], [made[1]], [], made[2:5], [made[5]], [made[1], made[1]], []]


def score(engine: str, model: Any, targets: Any, precision: str = "fp32") -> list[list[float]]:
    writer = make_writer(engine, model, precision)
    return make_scorer(engine, writer).log_likelihoods(writer.read(make_inputs()), targets)

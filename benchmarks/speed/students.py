"""Students of T5 v1.1's shapes with random weights, and the folder of prepared data that all cells share."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VOCABULARY = 32_128
"""embeddings of every T5; the tokenizer's pieces are about as many"""
PIECES = 32_000
SHAPES: dict[str, dict[str, int]] = {
    "small": {"d_model": 512, "d_ff": 1024, "d_kv": 64, "num_heads": 6, "num_layers": 8},
    "base": {"d_model": 768, "d_ff": 2048, "d_kv": 64, "num_heads": 12, "num_layers": 12},
    "tiny": {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2},
}
"""T5 v1.1 small and base, and one for trying the benchmark out"""
METHODS: dict[str, dict[str, Any]] = {
    "finetune": {"method": "finetune"},
    "dss": {"method": "dss"},
    "mi-released": {"method": "mi", "variant": "released", "beta": 0.1},
    "mi-paper": {"method": "mi", "variant": "paper", "beta": 0.1},
}
DATA = ("cqa", "svamp")
ENGINES = ("packed", "reference")
"""ours, with either engine"""
ENDS = ("at once", "never")
"""when the answers end: so short a training teaches a student from random weights to write the end token
alone; with that token's output weights negated it writes all 64 tokens. Trained students lie between."""


@dataclass(frozen=True)
class Cell:
    """What is measured at a time: a student's shape, a method, a dataset, examples a step, the precision."""

    shape: str
    method: str
    data: str
    batch: int
    precision: str

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def build(shape: dict[str, int], vocabulary: int = VOCABULARY, dropout: float = 0.1, seed: int = 0) -> Any:
    """A T5 v1.1 with random weights: gated GELU, its output layer a matrix of its own and unscaled.

    transformers 5.23 ties the embeddings of every T5 that is built from a config, so they are untied here.
    The output layer starts so small that logits are near 1: speed does not depend on it, and losses are sane.
    """
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary, dropout_rate=dropout, feed_forward_proj="gated-gelu",
            decoder_start_token_id=0, **shape,
        )
    )  # fmt: skip
    own = torch.randn(vocabulary, shape["d_model"]) * shape["d_model"] ** -0.5
    model.lm_head.weight = torch.nn.Parameter(own)
    model.config.tie_word_embeddings = model.config.scale_decoder_outputs = False
    assert model.lm_head.weight is not model.shared.weight
    return model


def config(
    folder: Path, cell: Cell, steps: int = 1000, threads: int = 1, device: str = "auto", rate: float = 5e-5
) -> dict[str, Any]:
    """The values of a config file whose one run is the cell, its student in `folder/students`."""
    return {
        "experiment": "speed",
        "datasets": [cell.data],
        "students": [{
            "name": cell.shape, "pretrained": str(folder / "students" / cell.shape),
            "compute": {"threads": threads},
        }],
        "methods": [{"name": cell.method, **METHODS[cell.method]}],
        "labels": ["gold"], "fractions": [1.0], "seeds": [0], "results": str(folder / "results"),
        "training": {
            "steps": steps, "batch_size": cell.batch, "precision": cell.precision, "device": device,
            "learning_rate": rate,
        },
    }  # fmt: skip


def run_of(folder: Path, cell: Cell, **settings: Any) -> Any:
    """The cell's run (`cotdistill.runs.grid.Run`); settings as those of `config`."""
    from cotdistill.runs.experiment import parse
    from cotdistill.runs.grid import expand

    (run,) = expand(parse(config(folder, cell, **settings), "benchmark"))
    return run


def prepare(folder: Path, shapes: list[str], datasets: list[str]) -> None:
    """Write students, tokenizer and prepared data below `folder`. What is there already is used again."""
    from cotdistill import students
    from cotdistill.jobs.prepare import prepare as prepare_pair

    missing = [shape for shape in shapes if not (folder / "students" / shape / "model.safetensors").is_file()]
    tokenizer = _tokenizer(folder / "tokenizer") if missing else None
    for shape in missing:
        students.save(build(SHAPES[shape]), tokenizer, folder / "students" / shape)
    for shape, data in itertools.product(shapes, datasets):
        run = run_of(folder, Cell(shape, "dss", data, 16, "fp32"))
        prepare_pair(run.experiment, run.dataset, run.student, run.prepared)


def _tokenizer(folder: Path) -> Any:
    """A Unigram tokenizer of about T5's size, trained on both datasets' training texts."""
    from cotdistill import data
    from cotdistill.data.prepared import TOKENISED
    from cotdistill.data.tasks import SHARED_LITERALS
    from cotdistill.data.tokenizers import load_tokenizer
    from cotdistill.students import scratch

    if (folder / "tokenizer.json").is_file():
        return load_tokenizer(folder)
    texts: list[str] = []
    for name in DATA:
        train = data.load(name, None, path=None)["train"]
        texts += [text for column in TOKENISED for text in train[column]]
        texts += [f"{literal.rstrip()} {text}" for literal in SHARED_LITERALS for text in train["input"]]
    tokenizer = scratch.train_tokenizer(texts, PIECES)
    tokenizer.save_pretrained(folder)
    return tokenizer


def rows_of(prepared: Any, split: str) -> dict[str, list[str]]:
    """Texts of a prepared split, as the published way reads them: `input`, `label`, `rationale`."""
    table = prepared.table(split)
    return {name: table.column(name).to_pylist() for name in ("input", "label", "rationale")}

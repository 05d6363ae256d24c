"""Part `evaluation`: a test set answered in both ways by one student, after a short training.

The student is one model for both, so its answers can be compared as well; they are counted where they differ.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import published
from benchmarks.speed import ways
from benchmarks.speed.students import Cell, rows_of, run_of


def measure(
    folder: Path, cell: Cell, rounds: int, seconds: float, threads: int, steps: int = 50, rate: float = 1e-3
) -> dict[str, Any]:
    """Seconds of each way's pass over the test set, in turns, after `steps` steps at learning rate `rate`.

    `published` generates, computes the loss and decodes; `ours` generates and compares; `ours with options`
    also scores every example's options, which the published way does not do.
    """
    torch.set_num_threads(threads)
    run = run_of(folder, cell, steps=max(steps, 1), threads=threads, device=ways.device().type, rate=rate)
    ours = ways.Ours(run)
    for number in range(1, steps + 1):
        ours.step(number)
    generator, prepared = ours.trainer.generator, ours.trainer.generator.prepared
    tokenizer, texts = prepared.tokenizer(), rows_of(prepared, "test")
    data = published.tokenise(texts, tokenizer, cell.method)
    times: dict[str, list[float]] = {"published": [], "ours": [], "ours with options": []}
    with tempfile.TemporaryDirectory() as temporary:
        trainer = published.trainer(
            ours.model, tokenizer, data, cell.method, Path(temporary), batch=cell.batch, steps=1,
            precision=cell.precision,
        )  # fmt: skip
        began = time.perf_counter()
        while True:
            start = ways.synchronised()
            theirs = published.answers(trainer, data, tokenizer)
            times["published"].append(ways.synchronised() - start)
            start = ways.synchronised()
            with ways.deterministic():
                own = [answer.prediction for answer in generator.answers(ours.model, "test")]
            times["ours"].append(ways.synchronised() - start)
            start = ways.synchronised()
            with ways.deterministic():
                scored = generator.answers(ours.model, "test", scored=True)
            times["ours with options"].append(ways.synchronised() - start)
            over = time.perf_counter() - began > seconds
            if len(times["ours"]) >= rounds or (over and len(times["ours"]) >= 2):
                break
    lengths = [len(ids) for ids in tokenizer(theirs, add_special_tokens=False)["input_ids"]]
    return {
        "cell": cell.dump(), "seconds": times, "examples": len(theirs), "training_steps": steps,
        "options": any(answer.options for answer in scored),
        "different": sum(a != b for a, b in zip(theirs, own, strict=True)),
        "mean_answer_tokens": sum(lengths) / len(lengths),
    }  # fmt: skip

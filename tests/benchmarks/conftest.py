"""The benchmarks importable, and a student without dropout that both ways train from the same folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


@pytest.fixture(scope="session")
def student(tiny: Any, once: Callable[..., Path]) -> Path:
    """A checkpoint of two layers, untied, with the tiny experiment's tokenizer."""

    def make(folder: Path) -> None:
        from benchmarks.speed.students import SHAPES, build
        from cotdistill import students
        from cotdistill.data.tokenizers import load_tokenizer

        tokenizer = load_tokenizer(tiny.prepared / "tokenizer")
        shape = {**SHAPES["tiny"], "d_model": 16}
        students.save(build(shape, len(tokenizer) + 7, dropout=0.0), tokenizer, folder / "student")

    return once("benchmarked", make) / "student"


@pytest.fixture
def run_of(tiny: Any, student: Path, tmp_path: Path) -> Callable[..., Any]:
    """A run of one of the benchmark's methods with that student and the published cuts."""
    from benchmarks.speed.students import METHODS
    from cotdistill.jobs.prepare import prepare

    def make(method: str, **training: Any) -> Any:
        settings = {"name": method, **METHODS[method]}
        more = {"max_input_tokens": 1024, "max_target_tokens": 256, "learning_rate": 1e-3, **training}
        entry = {"name": "small", "pretrained": str(student)}
        run = tiny.run(tmp_path / method, method, settings, student=entry, **more)
        prepare(run.experiment, run.dataset, run.student, run.prepared)
        return run

    return make

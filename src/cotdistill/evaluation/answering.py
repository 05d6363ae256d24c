"""Generate the test answers of a trained run's two checkpoints."""

from __future__ import annotations

import time

import torch

from cotdistill import methods, students
from cotdistill.config.grid import Run
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation import stored
from cotdistill.evaluation.generate import Generator
from cotdistill.files import file_sha256
from cotdistill.training import devices


def answer_test(run: Run) -> None:
    """Answer test with the checkpoints whose answers are not there yet, on a device of its own."""
    devices.deterministic(run.student.compute.threads)
    with devices.held(devices.choose(run.training.device)) as device:
        prepared, method = Prepared(run.prepared), methods.build(run.method.method, run.method.settings)
        answer_with(run, Generator(run, prepared, method, device))


def answer_with(run: Run, generator: Generator) -> None:
    """The same with a generator at hand: how training, still warm, answers test after its last step."""
    strict, last = (run.folder / name / "model.safetensors" for name in (stored.STRICT, stored.LAST))
    for checkpoint in (stored.STRICT, stored.LAST):
        if stored.current(run, checkpoint):
            continue
        started = time.perf_counter()
        if checkpoint == stored.LAST and file_sha256(last) == file_sha256(strict):
            answers, rationales = stored.read(run, stored.STRICT)
        else:
            # loading draws no random numbers that training could miss: it has ended
            model = students.load_saved(run.folder / checkpoint).to(generator.device)
            answers = generator.answers(model, "test")
            wanted = run.experiment.evaluation.rationales and checkpoint == stored.STRICT
            rationales = generator.rationales(model, "test") if wanted else None
            del model
        stored.write(run, checkpoint, answers, rationales, time.perf_counter() - started)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

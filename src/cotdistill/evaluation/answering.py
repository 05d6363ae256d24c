"""Generate the test answers of a trained run's two checkpoints."""

from __future__ import annotations

import time

import torch

from cotdistill import methods, students
from cotdistill.config.grid import Run
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation import stored
from cotdistill.evaluation.generate import Generator
from cotdistill.training import devices, outputs


def answer_test(run: Run) -> None:
    """Answer test with the checkpoints whose answers are not there yet, on a device of its own.

    Raises Preempted when asked to stop; what is answered by then is kept.
    """
    devices.deterministic(run.student.compute.threads)
    with devices.held(devices.choose(run.training.device)) as device:
        prepared, method = Prepared(run.prepared), methods.build(run.method.method, run.method.settings)
        answer_with(run, Generator(run, prepared, method, device))


def answer_with(run: Run, generator: Generator) -> None:
    """The same with a generator at hand: how training, still warm, answers test after its last step."""
    same = outputs.weights(run, stored.STRICT) == outputs.weights(run, stored.LAST)
    for checkpoint in outputs.CHECKPOINTS:
        if stored.current(run, checkpoint):
            continue
        started = time.perf_counter()
        if checkpoint == stored.LAST and same:
            answers, rationales = stored.read(run, stored.STRICT)
        else:
            # loading draws no random numbers that training could miss: it has ended
            model = students.load_saved(run.folder / checkpoint).to(generator.device)
            journals = [stored.journal(run, checkpoint, task) for task in ("answers", "rationales")]
            answers = generator.answers(model, "test", journals[0])
            wanted = run.experiment.evaluation.rationales and checkpoint == stored.STRICT
            rationales = generator.rationales(model, "test", journals[1]) if wanted else None
            del model
        stored.write(run, checkpoint, answers, rationales, time.perf_counter() - started)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

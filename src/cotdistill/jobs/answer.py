"""Generate the test answers of a trained run's two checkpoints."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cotdistill import methods, students
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation.information.measure import measure
from cotdistill.inference.generate import Generator
from cotdistill.runs import answers as stored
from cotdistill.runs import outputs
from cotdistill.runs.documents import Answer
from cotdistill.runs.folder import CHECKPOINTS, LAST, STRICT
from cotdistill.runs.grid import Run
from cotdistill.training import devices

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


def answer_test(run: Run) -> None:
    """Answer test with the checkpoints whose answers are not there yet, on a device of its own.

    Raises Preempted when asked to stop; what is answered by then is kept.
    """
    devices.deterministic(run.student.compute.threads)
    devices.reuse_memory()
    with devices.held(devices.choose(run.training.device)) as device:
        prepared, method = Prepared(run.prepared), methods.build(run.method.method, run.method.settings)
        answer_with(run, Generator(run, prepared, method, device))


def answer_with(run: Run, generator: Generator) -> None:
    """The same with a generator at hand: how training, still warm, answers test after its last step."""
    same = outputs.weights(run, STRICT) == outputs.weights(run, LAST)
    for checkpoint in CHECKPOINTS:
        if stored.current(run, checkpoint):
            continue
        started = time.perf_counter()
        information = {}
        if checkpoint == LAST and same:
            answers = stored.read(run, STRICT)
        else:
            # loading draws no random numbers that training could miss: it has ended
            model = students.load_saved(run.folder / checkpoint).to(generator.device)
            answers = _answers(run, generator, model, checkpoint)
            if checkpoint == STRICT:
                information = measure(model, run, generator.prepared, generator.device)
            del model
        stored.write(run, checkpoint, answers, information, time.perf_counter() - started)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _answers(
    run: Run, generator: Generator, model: T5ForConditionalGeneration, checkpoint: str
) -> list[Answer]:
    """A checkpoint's answers to test; the chosen one's with scores of the options and with rationales."""
    chosen = checkpoint == STRICT
    answers = generator.answers(model, "test", stored.journal(run, checkpoint, "answers"), scored=chosen)
    if not chosen:
        return answers
    if run.experiment.evaluation.rationales:
        written = generator.rationales(model, "test", stored.journal(run, checkpoint, "rationales"))
        if written is not None:
            texts = zip(answers, written, generator.teacher_rationales("test"), strict=True)
            answers = [replace(answer, rationale=own, teacher_rationale=teachers)
                       for answer, own, teachers in texts]  # fmt: skip
    return answers

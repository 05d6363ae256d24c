"""Answer the test split with a trained run's two checkpoints, and keep the answers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cotdistill import methods, students
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation.predictability.measure import measure_test
from cotdistill.inference.generate import Generator
from cotdistill.inference.options import OptionScorer
from cotdistill.runs import answers as stored
from cotdistill.runs import outputs
from cotdistill.runs.documents import Answer
from cotdistill.runs.folder import CHECKPOINTS, LAST, STRICT
from cotdistill.runs.grid import Run
from cotdistill.students import engines
from cotdistill.training import devices

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def answer_test(run: Run) -> None:
    """Answer test with the checkpoints whose answers are not there yet, on a device that is claimed for it.

    Raises Preempted when asked to stop; what is answered by then is kept.
    """
    devices.make_deterministic(run.student.compute.threads)
    devices.reuse_memory()
    kind = devices.choose(run.training.device)
    with devices.hold_device(kind) as device:
        prepared, method = Prepared(run.prepared), methods.build(run.method.method, run.method.settings)
        generator = Generator(run, prepared, method, engines.choose(run.training.engine, kind))
        answer_with(run, generator, device)


def answer_with(run: Run, generator: Generator, device: torch.device) -> None:
    """Answer test with the checkpoints whose answers are not there yet, with a given generator and device."""
    same = outputs.find_weights(run, STRICT) == outputs.find_weights(run, LAST)
    for checkpoint in CHECKPOINTS:
        if stored.are_current(run, checkpoint):
            continue
        started = time.perf_counter()
        predictability = {}
        if checkpoint == LAST and same:
            answers = stored.load(run, STRICT)
        else:
            # loading draws no random numbers that training could miss: it has ended
            folder = outputs.find_checkpoint(run, checkpoint) or run.files.checkpoint(checkpoint)
            model = students.load_saved(folder).to(device)
            answers = _answer(run, generator, model, checkpoint)
            if checkpoint == STRICT:
                predictability = measure_test(
                    model, run, generator.prepared, generator.method, generator.engine
                )
            del model
        stored.store(run, checkpoint, answers, predictability, time.perf_counter() - started)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _answer(run: Run, generator: Generator, model: PreTrainedModel, checkpoint: str) -> list[Answer]:
    """Return a checkpoint's answers to test; the chosen one's with scores of the options and rationales."""
    chosen = checkpoint == STRICT
    journal = stored.open_journal(run, checkpoint, "answers")
    options = None
    if chosen:
        end, longest = int(generator.tokenizer.eos_token_id), run.training.max_target_tokens
        options = OptionScorer(generator.prepared, "test", generator.engine, end, longest)
    answers = generator.answer(model, "test", journal, options)
    if not chosen or not run.experiment.evaluation.rationales:
        return answers
    journal = stored.open_journal(run, checkpoint, "rationales")
    written = generator.write_rationales(model, "test", journal)
    if written is None:
        return answers
    texts = zip(answers, written, generator.read_teacher_rationales("test"), strict=True)
    return [replace(answer, rationale=own, teacher_rationale=teacher) for answer, own, teacher in texts]

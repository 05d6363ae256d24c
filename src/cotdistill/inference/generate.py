"""Greedy generation of answers and rationales, and scores of options, in batches sorted by length."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from cotdistill.common import stopping
from cotdistill.data.answers import matches
from cotdistill.data.batches import Collator
from cotdistill.data.prepared import Prepared
from cotdistill.inference import options
from cotdistill.inference.journal import Journal
from cotdistill.methods import Method, Task
from cotdistill.runs.documents import Answer
from cotdistill.students.packed.greedy import Greedy
from cotdistill.students.packed.kernels import Dropout
from cotdistill.students.packed.layout import Layout, groups_of
from cotdistill.students.packed.output import OutputLayer
from cotdistill.students.packed.passes import Passes

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from cotdistill.runs.grid import Run


Generated = tuple[str, float, list[float]]
"""text, probability of the generated tokens, log-likelihoods of the options"""


class Generator:
    """Generates for the examples of a prepared pair, as one run's evaluation settings say."""

    def __init__(self, run: Run, prepared: Prepared, method: Method, device: torch.device) -> None:
        self.run, self.prepared, self.method, self.device = run, prepared, method, device
        self.tokenizer = prepared.tokenizer()
        self.answer_kind: str = prepared.manifest["answer"]

    def answers(
        self, model: T5ForConditionalGeneration, split: str, journal: Journal | None = None,
        scored: bool = False,
    ) -> list[Answer]:  # fmt: skip
        """An answer for every example of the split, in its order. Raises Preempted when asked to stop.

        journal: keeps finished batches, so that an interrupted call goes on where it was. scored: with the
        options' probabilities, in the order of its `options`, where the evaluated task writes the label
        alone (with `single_task` the likelihood of a label would be that of one rationale before it).

        As published, the prediction is compared with the gold label as the tokenizer gives it back.
        """
        task = self.method.tasks[0]
        label_alone = task.target == ("label",)
        scored = scored and label_alone and any(self._choices(split))
        evaluation, training = self.run.experiment.evaluation, self.run.training
        longest = evaluation.max_new_tokens if label_alone else training.max_target_tokens
        student = _Student(model, training.precision)
        found = self._batches(
            model, split, journal, lambda rows: self._batch(student, task, split, rows, longest, scored)
        )
        ids, inputs, golds, readable = self._references(split)
        answers = []
        for row, (text, confidence, scores) in enumerate(found):
            prediction = self.method.read_label(text)
            correct = matches(self.answer_kind, prediction, readable[row])
            answer = Answer(ids[row], inputs[row], golds[row], prediction, correct, confidence)
            if scored:
                labels = list(self._choices(split)[row].values())
                answer = replace(answer, options=labels, option_probabilities=options.normalised(scores))
            answers.append(answer)
        return answers

    def rationales(
        self, model: T5ForConditionalGeneration, split: str, journal: Journal | None = None
    ) -> list[str] | None:
        """A generated rationale for every example, or None where the method writes none alone."""
        task = self.method.rationale_task
        if task is None:
            return None
        longest = self.run.training.max_target_tokens
        student = _Student(model, self.run.training.precision)
        found = self._batches(
            model, split, journal, lambda rows: self._batch(student, task, split, rows, longest, False)
        )
        return [text for text, _, _ in found]

    @cache  # noqa: B019 a generator lives as long as its run
    def _references(self, split: str) -> tuple[list[str], list[str], list[str], list[str]]:
        table = self.prepared.table(split)
        ids, inputs, golds = (table.column(name).to_pylist() for name in ("id", "input", "label"))
        label_ids = table.column("label_ids").to_pylist()
        return ids, inputs, golds, [self._decode(row) for row in label_ids]

    @cache  # noqa: B019
    def _choices(self, split: str) -> list[options.Choices]:
        table = self.prepared.table(split)
        found, ids, golds = (table.column(name).to_pylist() for name in ("options", "options_ids", "label"))
        end = int(self.tokenizer.eos_token_id)
        return options.choices(found, ids, golds, end, self.run.training.max_target_tokens)

    def teacher_rationales(self, split: str) -> list[str]:
        """The teacher's rationale of every example, in full; empty where its output could not be read."""
        texts: list[str] = self.prepared.table(split).column("rationale").to_pylist()
        return texts

    @cache  # noqa: B019
    def _collator(self, split: str) -> Collator:
        training = self.run.training
        return Collator(self.prepared, split, "gold", training.max_input_tokens, training.max_target_tokens)

    def _decode(self, ids: Any) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    def _batches(
        self, model: T5ForConditionalGeneration, split: str, journal: Journal | None,
        work: Callable[[list[int]], list[Any]],
    ) -> list[Any]:  # fmt: skip
        """What `work` gives for every example of the split, from the journal where it is there."""
        model.eval()
        collator, size = self._collator(split), self.run.experiment.evaluation.batch_size
        lengths = [len(collator.inputs[row]) for row in range(len(collator.inputs))]
        order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
        results: list[Any] = [None] * len(order)
        for start in range(0, len(order), size):
            stopping.check()
            rows = order[start : start + size]
            # batches are kept whole: an example's last bits depend on those beside it
            found = journal.get(start) if journal else None
            if found is None:
                found = work(rows)
                if journal:
                    journal.put(start, found)
            for row, result in zip(rows, found, strict=True):
                results[row] = result
        return results

    @torch.inference_mode()
    def _batch(
        self, student: _Student, task: Task, split: str, rows: list[int], longest: int, scored: bool
    ) -> list[Generated]:
        """Text, its probability, and the options' log-likelihoods; the encoder runs once for all."""
        collator, passes = self._collator(split), student.passes
        inputs = [torch.from_numpy(collator.input_ids(task, row)) for row in rows]
        layout = Layout([len(ids) for ids in inputs], groups_of(len(rows)), self.device)
        read = passes.read(passes.encoder(passes.embedded(torch.cat(inputs).to(self.device)), layout))
        scores: list[list[float]] = [[] for _ in rows]
        if scored:
            choices = [list(self._choices(split)[row]) for row in rows]
            scores = options.log_likelihoods(passes, student.output, read, layout, choices)
        written = student.greedy.write(read, layout, longest, collator.end)
        texts = [self._decode(ids) for ids, _ in written]
        return [
            (text, math.exp(log), own) for text, (_, log), own in zip(texts, written, scores, strict=True)
        ]


class _Student:
    """What answers with a model whose weights stay as they are."""

    def __init__(self, model: T5ForConditionalGeneration, precision: str) -> None:
        device = model.lm_head.weight.device
        self.passes = Passes(model, Dropout(0.0, 0, device), precision)
        with torch.inference_mode():
            self.output = OutputLayer(model, precision, fixed=True)
            self.greedy = Greedy(model, self.output, precision)

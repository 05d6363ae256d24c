"""Generate answers and rationales, in batches of inputs of similar length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from cotdistill.common import stopping
from cotdistill.data.answers import is_right
from cotdistill.data.batches import Collator
from cotdistill.data.prepared import Prepared
from cotdistill.data.tasks import limit_answer
from cotdistill.data.tokenizers import decode_texts
from cotdistill.methods import Method, Task
from cotdistill.runs.documents import Answer
from cotdistill.runs.journal import Journal
from cotdistill.students.engines import make_writer
from cotdistill.students.interface import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from cotdistill.runs.grid import Run

Generated = tuple[str, float, list[float]]
"""text, probability of the generated tokens, log-likelihoods of the options"""


class Options(Protocol):
    """The options of a split, with their scores (`inference.options`, no part of training's fingerprint)."""

    @property
    def is_needed(self) -> bool:
        """Whether an example has options at all."""

    def score(self, writer: Writer, read: Any, rows: Sequence[int]) -> list[list[float]]:
        """Return log p(option | input) in nats, for each option of these rows.

        writer: has read the rows' inputs as `read`.
        """

    def add_to(self, answer: Answer, row: int, scores: Sequence[float]) -> Answer:
        """Return the answer to row `row` with its options and what was scored of them."""


class Generator:
    """Generates answers for the examples of a prepared pair, as one run's evaluation settings say."""

    def __init__(self, run: Run, prepared: Prepared, method: Method, engine: str) -> None:
        self.run, self.prepared, self.method, self.engine = run, prepared, method, engine
        self.tokenizer = prepared.tokenizer()
        self.answer_kind: str = prepared.manifest["answer"]

    def answer(
        self, model: PreTrainedModel, split: str, journal: Journal | None = None,
        options: Options | None = None,
    ) -> list[Answer]:  # fmt: skip
        """Return an answer for every example of the split, in its order. Raises Preempted when asked to stop.

        journal: keeps finished batches, so that an interrupted call can be repeated without their work.
        options: scores the split's options, whose scores are then part of the answers, where the evaluated
        task writes the label alone (with `single_task` a label's likelihood would be that of one rationale
        before it).

        As published, the prediction is compared with the gold label as the tokenizer decodes it.
        """
        task = self.method.tasks[0]
        label_alone = task.target == ("label",)
        if options is not None and not (label_alone and options.is_needed):
            options = None
        evaluation, training = self.run.experiment.evaluation, self.run.training
        longest = limit_answer(task, evaluation.max_new_tokens, training.max_target_tokens)
        writer = make_writer(self.engine, model, training.precision)
        found = self._answer_in_batches(
            model, split, journal,
            lambda rows: self._generate_batch(writer, options, task, split, rows, longest),
        )
        ids, inputs, golds, readable, groups = self._read_references(split)
        answers = []
        for row, (text, confidence, scores) in enumerate(found):
            prediction = self.method.read_label(text)
            correct = is_right(self.answer_kind, prediction, readable[row])
            answer = Answer(
                ids[row], inputs[row], golds[row], prediction, correct, confidence, group=groups[row]
            )
            answers.append(options.add_to(answer, row, scores) if options else answer)
        return answers

    def write_rationales(
        self, model: PreTrainedModel, split: str, journal: Journal | None = None
    ) -> list[str] | None:
        """Return a generated rationale for every example, or None where the method writes none alone.

        journal: see `answer`.
        """
        task = self.method.rationale_task
        if task is None:
            return None
        longest = self.run.training.max_target_tokens
        writer = make_writer(self.engine, model, self.run.training.precision)
        found = self._answer_in_batches(
            model, split, journal,
            lambda rows: self._generate_batch(writer, None, task, split, rows, longest),
        )  # fmt: skip
        return [text for text, _, _ in found]

    def read_teacher_rationales(self, split: str) -> list[str]:
        """Return the teacher's rationale of every example; empty where its output could not be read."""
        texts: list[str] = self.prepared.table(split).column("rationale").to_pylist()
        return texts

    @cache  # noqa: B019 a generator lives as long as its run
    def _read_references(self, split: str) -> tuple[list[str], ...]:
        """Return ids, inputs, gold labels, these as the tokenizer decodes them, and groups."""
        table = self.prepared.table(split)
        names = ("id", "input", "label", "group")
        ids, inputs, golds, groups = (table.column(name).to_pylist() for name in names)
        label_ids = table.column("label_ids").to_pylist()
        return ids, inputs, golds, [self._decode(row) for row in label_ids], groups

    @cache  # noqa: B019
    def _make_collator(self, split: str) -> Collator:
        training = self.run.training
        return Collator(self.prepared, split, "gold", training.max_input_tokens, training.max_target_tokens)

    def _decode(self, ids: Any) -> str:
        return decode_texts(self.tokenizer, [ids])[0]

    def _answer_in_batches(
        self, model: PreTrainedModel, split: str, journal: Journal | None,
        work: Callable[[list[int]], list[Any]],
    ) -> list[Any]:  # fmt: skip
        """Return what `work` gives for every example of the split, from the journal where it is there."""
        model.eval()
        collator, size = self._make_collator(split), self.run.experiment.evaluation.batch_size
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

    def _generate_batch(
        self, writer: Writer, options: Options | None, task: Task, split: str, rows: list[int], longest: int
    ) -> list[Generated]:
        """Return for each row the text, its probability, and its options' log-likelihoods.

        Each input is read once for both.
        """
        import torch

        collator = self._make_collator(split)
        read = writer.read([torch.from_numpy(collator.input_ids(task, row)) for row in rows])
        scores: list[list[float]] = [[] for _ in rows]
        if options is not None:
            scores = options.score(writer, read, rows)
        written = writer.write(read, longest, collator.end)
        texts = [self._decode(ids) for ids, _ in written]
        return [
            (text, math.exp(log), own) for text, (_, log), own in zip(texts, written, scores, strict=True)
        ]

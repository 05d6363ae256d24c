"""Greedy generation of answers and rationales, and scores of options, in batches sorted by length."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from cotdistill.answers import matches
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation import options
from cotdistill.evaluation.journal import Journal
from cotdistill.evaluation.scores import Answer
from cotdistill.jobs import stopping
from cotdistill.methods import Method, Task
from cotdistill.training.batches import Collator

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from cotdistill.config.grid import Run


class Confidence:
    """A logits processor that changes nothing and sums the log-probability of each greedy choice.

    Keeps (B,) numbers instead of the (steps, B, V) scores that `generate` would return.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self.total: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # summed in float64, whose exponential of a long unsure sequence does not underflow to 0
        best = scores.float().log_softmax(-1).amax(-1).double()
        if self.total is None:
            self.total = torch.zeros_like(best)
        finished = (input_ids == self.end).any(-1)
        self.total = self.total + best.masked_fill(finished, 0.0)
        return scores


class Generator:
    """Generates for the examples of a prepared pair, as one run's evaluation settings say."""

    def __init__(self, run: Run, prepared: Prepared, method: Method, device: torch.device) -> None:
        self.run, self.prepared, self.method, self.device = run, prepared, method, device
        self.tokenizer = prepared.tokenizer()
        self.answer_kind: str = prepared.manifest["answer"]

    def answers(
        self, model: T5ForConditionalGeneration, split: str, journal: Journal | None = None
    ) -> list[Answer]:
        """An answer for every example of the split, in its order. Raises Preempted when asked to stop.

        journal: keeps finished batches, so that an interrupted call goes on where it was.

        As published, the prediction is compared with the gold label as the tokenizer gives it back.
        """
        task = self.method.tasks[0]
        label_alone = task.target == ("label",)
        evaluation, training = self.run.experiment.evaluation, self.run.training
        longest = evaluation.max_new_tokens if label_alone else training.max_target_tokens
        texts, confidences = self._generate(model, task, split, longest, journal)
        ids, inputs, golds, readable = self._references(split)
        answers = []
        for row, text in enumerate(texts):
            prediction = self.method.read_label(text)
            correct = matches(self.answer_kind, prediction, readable[row])
            answers.append(Answer(ids[row], inputs[row], golds[row], prediction, correct, confidences[row]))
        return answers

    def option_probabilities(
        self, model: T5ForConditionalGeneration, split: str, journal: Journal | None = None
    ) -> list[list[float]] | None:
        """The options' probabilities of every example, in the order of `distinct_options`.

        None where the evaluated task writes more than the label (`single_task`: the likelihood of a label
        would be that of one rationale before it) and where no example has options.
        """
        task, choices = self.method.tasks[0], self._choices(split)
        if task.target != ("label",) or not any(choices):
            return None
        scores = self._batches(model, split, journal, lambda rows: self._scores(model, task, split, rows))
        return [options.normalised(row) for row in scores]

    def rationales(
        self, model: T5ForConditionalGeneration, split: str, journal: Journal | None = None
    ) -> list[str] | None:
        """A generated rationale for every example, or None where the method writes none alone."""
        task = self.method.rationale_task
        if task is None:
            return None
        return self._generate(model, task, split, self.run.training.max_target_tokens, journal)[0]

    @cache  # noqa: B019 a generator lives as long as its run
    def _references(self, split: str) -> tuple[list[str], list[str], list[str], list[str]]:
        table = self.prepared.table(split)
        ids, inputs, golds = (table.column(name).to_pylist() for name in ("id", "input", "label"))
        label_ids = table.column("label_ids").to_pylist()
        return ids, inputs, golds, [self._decode(row) for row in label_ids]

    @cache  # noqa: B019
    def _choices(self, split: str) -> list[options.Choices]:
        table = self.prepared.table(split)
        found, golds = (table.column(name).to_pylist() for name in ("options", "label"))
        return options.choices(found, golds, self.tokenizer, self.run.training.max_target_tokens)

    def distinct_options(self, split: str) -> list[list[str]]:
        """The labels to choose from of every example, without repetitions; empty for an open label set."""
        return [list(choices.values()) for choices in self._choices(split)]

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

    def _generate(
        self, model: T5ForConditionalGeneration, task: Task, split: str, longest: int, journal: Journal | None
    ) -> tuple[list[str], list[float]]:
        def work(rows: list[int]) -> list[tuple[str, float]]:
            return self._batch(model, task, split, rows, longest)

        found = self._batches(model, split, journal, work)
        return [text for text, _ in found], [confidence for _, confidence in found]

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
    def _scores(
        self, model: T5ForConditionalGeneration, task: Task, split: str, rows: list[int]
    ) -> list[list[float]]:
        batch = self._collator(split).batch(task, rows).to(self.device)
        with self._autocast():
            return options.log_likelihoods(model, batch, [list(self._choices(split)[row]) for row in rows])

    def _autocast(self) -> torch.autocast:
        bf16 = self.run.training.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    @torch.inference_mode()
    def _batch(
        self, model: T5ForConditionalGeneration, task: Task, split: str, rows: list[int], longest: int
    ) -> list[tuple[str, float]]:
        from transformers.generation.logits_process import LogitsProcessorList

        collator = self._collator(split)
        batch, confidence = collator.batch(task, rows).to(self.device), Confidence(collator.end)
        with self._autocast():
            output = model.generate(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=longest,
                do_sample=False, num_beams=1, logits_processor=LogitsProcessorList([confidence]),
            )
        assert confidence.total is not None
        texts = [self._decode(ids) for ids in output.tolist()]
        return list(zip(texts, confidence.total.exp().tolist(), strict=True))

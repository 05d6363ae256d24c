"""Score the options of a closed label set: how much a student believes in each label.

What is kept of an option is the log-likelihood of its token sequence, end token included, given the input,
and the number of these tokens; `evaluation.option_scores` makes probabilities of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cotdistill.data.prepared import Prepared
from cotdistill.runs.documents import Answer
from cotdistill.students.engines import make_scorer
from cotdistill.students.interface import Writer

Choices = dict[tuple[int, ...], str]
"""the distinct options of one example: token ids, end token included, and the text"""


class OptionScorer:
    """The options of a split's examples, and how their likelihoods are computed."""

    def __init__(self, prepared: Prepared, split: str, engine: str, end: int, longest: int) -> None:
        """Read the options of a split.

        end: the end token; longest: tokens at which a target is cut, as labels are.
        """
        table = prepared.table(split)
        options, ids, golds = (
            table.column(name).to_pylist() for name in ("options", "options_ids", "label")
        )
        self.choices = list_distinct(options, ids, golds, end, longest)
        self.engine = engine

    @property
    def is_needed(self) -> bool:
        """Whether an example has options at all."""
        return any(self.choices)

    def score(self, writer: Writer, read: Any, rows: Sequence[int]) -> list[list[float]]:
        """Return log p(option | input) in nats, for each option of these rows.

        writer: has read the rows' inputs as `read`.
        """
        options = [list(self.choices[row]) for row in rows]
        return make_scorer(self.engine, writer).log_likelihoods(read, options)

    def add_to(self, answer: Answer, row: int, scores: Sequence[float]) -> Answer:
        """Return the answer to row `row` with its options, their log-likelihoods and numbers of tokens."""
        choices = self.choices[row]
        return replace(
            answer, options=list(choices.values()), option_log_likelihoods=list(scores),
            option_tokens=[len(ids) for ids in choices],
        )  # fmt: skip


def list_distinct(
    options: Sequence[Sequence[str]], ids: Sequence[Sequence[Sequence[int]]], golds: Sequence[str],
    end: int, longest: int,
) -> list[Choices]:  # fmt: skip
    """Return the distinct options of every example, in the order in which they first occur.

    ids: their tokens without the end token `end`, with which they are cut at `longest` tokens, as labels are.
    Options that the tokenizer cannot tell apart are one; its text is the gold label's if that is among them.
    """
    found = []
    for row, tokens, gold in zip(options, ids, golds, strict=True):
        cut = [(*each[: longest - 1], end) for each in tokens]
        one: Choices = {}
        for own, text in zip(cut, row, strict=True):
            one.setdefault(own, text)
        if gold in row:
            one[cut[row.index(gold)]] = gold
        found.append(one)
    return found

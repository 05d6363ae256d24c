"""CommonsenseQA: five options, one right, with PaLM rationales."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cotdistill.data.adapter import Record, ReleaseAdapter, find_named_option

_OPTION = re.compile(r"\(.\)")


class Cqa(ReleaseAdapter):
    """CommonsenseQA, train and test; the test split is the original validation split."""

    name = "cqa"
    answer = "text"
    licence = "CommonsenseQA: MIT; CoS-E: BSD-3-Clause; PaLM outputs: Apache-2.0"
    source = "CommonsenseQA (Talmor et al. 2019), CoS-E v1.11 (Rajani et al. 2019), DSS release"

    def example(self, record: Record) -> tuple[str, str, list[str]]:
        """Return the question with its five choices listed, the right choice, and the choices."""
        question, label = record.text("question"), record.text("answer", filled=True)
        choices = record.texts("choices", count=5)
        if label not in choices:
            raise record.fault(f"column 'answer': expected one of the choices, found {label!r:.60}")
        listed = [f"({letter}) {choice}" for letter, choice in zip("abcde", choices, strict=True)]
        return "\n".join([question, "Answer Choices:", *listed]), label, choices

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return the rationale, before `So the answer is`, and the label after the next `(x)`.

        The output is cut at `Q:`, where another question begins. Where several options are named, the text
        between the first two markers counts, as published ("(a) pond or (b) lake" gives "pond or"). Both are
        empty where the phrase does not occur exactly once.
        """
        parts = output.split("Q:", 1)[0].rstrip().split("So the answer is")
        if len(parts) != 2:
            return "", ""
        pieces = _OPTION.split(parts[1], maxsplit=2)
        label = pieces[1].strip() if len(pieces) > 1 else ""
        return parts[0].rstrip(), label.removesuffix(".")

    def stated_label(self, rationale: str, options: Sequence[str]) -> str:
        """Return the only option named after the last `Of the above choices`, with which PaLM concludes."""
        _, found, conclusion = rationale.rpartition("Of the above choices")
        return find_named_option(conclusion, options) if found else ""


ADAPTER = Cqa()

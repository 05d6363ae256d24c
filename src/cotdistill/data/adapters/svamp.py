"""SVAMP: arithmetic word problems whose answer is an equation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cotdistill.data.adapter import Record, ReleaseAdapter
from cotdistill.data.answers import evaluate_equation

_ARITHMETIC = re.compile(r"[-+*/().0-9 ]+")
_OPERATION = re.compile(r"[0-9)] ?[-+*/]")


def parse_equation(output: str) -> tuple[str, str]:
    """(rationale, equation): the parenthesised text after the only `The answer is` of the first answer."""
    parts = output.split("Q:", 1)[0].rstrip().split("The answer is")
    if len(parts) != 2:
        return "", ""
    # first "(" to last ")" of the first line that has both in this order; a regular expression would
    # need quadratic time on a long run of "("
    for line in parts[1].split("\n"):
        start, end = line.find("("), line.rfind(")")
        if 0 <= start < end:
            return parts[0].rstrip(), line[start : end + 1]
    return parts[0].rstrip(), ""


def stated_equation(rationale: str) -> str:
    """The last arithmetic with an operator in it: "So he had 12 - 10 = 2 left." states "12 - 10"."""
    for run in reversed(_ARITHMETIC.findall(rationale)):
        expression = run.strip(" .")
        if _OPERATION.search(expression) and evaluate_equation(expression) is not None:
            return str(expression)
    return ""


class Svamp(ReleaseAdapter):
    """Train and test: the published 800 / 200 split."""

    name = "svamp"
    answer = "equation"
    licence = "SVAMP: MIT; PaLM outputs: Apache-2.0"
    source = "SVAMP (Patel et al. 2021), DSS release"

    def example(self, record: Record) -> tuple[str, str, list[str]]:
        """See `ReleaseAdapter.example`."""
        label = record.text("label", filled=True)
        if evaluate_equation(label) is None:
            raise record.fault(f"column 'label': expected plain arithmetic, found {label!r:.40}")
        return record.text("input"), label, []

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """See `parse_equation`; an output that does not end in an answer has no rationale either."""
        return parse_equation(output)

    def stated_label(self, rationale: str, options: Sequence[str]) -> str:
        """See `stated_equation`."""
        return stated_equation(rationale)


ADAPTER = Svamp()

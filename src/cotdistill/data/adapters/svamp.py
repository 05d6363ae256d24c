"""SVAMP: arithmetic word problems whose answer is an equation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cotdistill.data.adapter import Record, ReleaseAdapter
from cotdistill.data.answers import evaluate_equation

_ARITHMETIC = re.compile(r"[-+*/().0-9 ]+")
_OPERATION = re.compile(r"[0-9)] ?[-+*/]")


def parse_equation(output: str) -> tuple[str, str]:
    """Return the rationale before `The answer is`, and the text in parentheses after it.

    The output is cut at `Q:`, where another question begins. Both are empty where the phrase does not occur
    exactly once; the equation is empty where no parentheses follow.
    """
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
    """Return the last arithmetic with an operator in it: "So he had 12 - 10 = 2 left." states "12 - 10"."""
    for run in reversed(_ARITHMETIC.findall(rationale)):
        expression = run.strip(" .")
        if _OPERATION.search(expression) and evaluate_equation(expression) is not None:
            return str(expression)
    return ""


class Svamp(ReleaseAdapter):
    """SVAMP, train and test: the published 800 / 200 split."""

    name = "svamp"
    answer = "equation"
    reads_open_labels = True
    licence = "SVAMP: MIT; PaLM outputs: Apache-2.0"
    source = "SVAMP (Patel et al. 2021), DSS release"

    def example(self, record: Record) -> tuple[str, str, list[str]]:
        """Return the problem, its equation and no options. Raises UserError where there is no equation."""
        label = record.text("label", filled=True)
        if evaluate_equation(label) is None:
            raise record.fault(f"column 'label': expected plain arithmetic, found {label!r:.40}")
        return record.text("input"), label, []

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return (rationale, equation) of one PaLM output, see `parse_equation`."""
        return parse_equation(output)

    def stated_label(self, rationale: str, options: Sequence[str]) -> str:
        """Return the last arithmetic in the rationale that has an operator, see `stated_equation`."""
        return stated_equation(rationale)


ADAPTER = Svamp()

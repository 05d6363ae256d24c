"""SVAMP: arithmetic word problems whose answer is an equation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cotdistill.data.adapter import Record, ReleaseAdapter
from cotdistill.data.answers import evaluate_equation
from cotdistill.data.groups import name_group

_ARITHMETIC = re.compile(r"[-+*/().0-9 ]+")
_OPERATION = re.compile(r"[0-9)] ?[-+*/]")
_WORD = re.compile(r"[a-z]+")
OPENING = 5
"""words of a problem by which its story is known: SVAMP varies the numbers, the rest and the question"""


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


def find_story(body: str) -> str:
    """Return the first words of a problem's text before its question, in lower case, numbers left out.

    Problems that begin so are taken for variations of one story: SVAMP made its 1,000 from 100 seeds, by
    changing numbers, question and part of the text (Patel et al. 2021, section 4), and does not tell which.
    """
    return " ".join(_WORD.findall(body.lower())[:OPENING])


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

    def find_group(self, record: Record) -> str:
        """Return the story, see `find_story`; the text's last line is its question."""
        text = record.text("input")
        return name_group(find_story(text.rpartition("\n")[0] or text))

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return (rationale, equation) of one PaLM output, see `parse_equation`."""
        return parse_equation(output)

    def stated_label(self, rationale: str, options: Sequence[str]) -> str:
        """Return the last arithmetic in the rationale that has an operator, see `stated_equation`."""
        return stated_equation(rationale)


ADAPTER = Svamp()

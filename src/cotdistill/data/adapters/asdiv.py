"""SVAMP with its training split extended by problems of ASDiv.

The published code means to do this, but its loader cannot be constructed. Valid and test are SVAMP's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from cotdistill.data.adapter import Record, ReleaseAdapter
from cotdistill.data.adapters.svamp import ADAPTER as SVAMP
from cotdistill.data.adapters.svamp import find_story, parse_equation, stated_equation
from cotdistill.data.answers import evaluate_equation, split_equation
from cotdistill.data.groups import name_group
from cotdistill.data.rows import Row

# bounded, so that a hostile answer costs no quadratic time; "1,000", "3/4" and "12:30" are no numbers here
_LEADING = re.compile(r"\s{0,9}(-?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}))(?![0-9.,:/]{0,9}[0-9])")


def _format_as_svamp(expression: str) -> str:
    """Return arithmetic as SVAMP writes it: '7+2' becomes '( 7.0 + 2.0 )'."""
    return " ".join(["(", *map(_format_number, split_equation(expression)), ")"])


def _format_number(token: str) -> str:
    # as text: str(float(token)) would write large numbers with an exponent
    if token in "-+*/()":
        return token
    return f"0{token}" if token[0] == "." else token if "." in token else f"{token}.0"


class Asdiv(ReleaseAdapter):
    """Rows of `asdiv/asdiv_train.json`: Body, Question, Formula ("7+2=9"), Answer ("9 (apples)").

    The label is the left side of Formula. Where that is not plain arithmetic, or has another value than
    Answer begins with, the label is the number of Answer alone; a row that offers neither is refused.
    """

    name = "asdiv"
    answer = "equation"
    reads_open_labels = True
    licence = "ASDiv: CC BY-NC 4.0 (non-commercial use only); SVAMP: MIT; PaLM outputs: Apache-2.0"
    source = "ASDiv (Miao et al. 2020) and SVAMP (Patel et al. 2021), DSS release"

    def read(self, root: Path) -> dict[str, list[Row]]:
        """Return SVAMP's splits; the rows of ASDiv come with `extra_train`."""
        return SVAMP.read(root)

    def extra_train(self, root: Path) -> list[Row]:
        """Return the training problems of ASDiv."""
        return self.read_split(root, "train")

    def example(self, record: Record) -> tuple[str, str, list[str]]:
        """Return the problem's text, its label as described above, and no options."""
        formula, answer = record.text("Formula"), record.text("Answer")
        left = formula.split("=", 1)[0]
        value, leading = evaluate_equation(left), _LEADING.match(answer)
        stated = float(leading[1]) if leading else None
        if value is not None and (stated is None or math.isclose(value, stated, rel_tol=1e-6)):
            label = _format_as_svamp(left)
        elif leading:
            label = _format_as_svamp(leading[1])
        else:
            raise record.fault(
                "expected arithmetic before '=' in 'Formula' or a number first in 'Answer', found "
                f"{formula!r:.60} and {answer!r:.60}"
            )
        return record.text("Body") + "\n" + record.text("Question"), label, []

    def find_group(self, record: Record) -> str:
        """Return the story as SVAMP's problems are grouped by it, as SVAMP was made from ASDiv's."""
        return name_group(find_story(record.text("Body") or record.text("Question")))

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return (rationale, equation) of a PaLM output, in the form that SVAMP's outputs have."""
        return parse_equation(output)

    def stated_label(self, rationale: str, options: Sequence[str]) -> str:
        """Return the last arithmetic in the rationale that has an operator, see `stated_equation`."""
        return stated_equation(rationale)


ADAPTER = Asdiv()

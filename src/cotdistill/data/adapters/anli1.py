"""Adversarial NLI, round 1."""

from __future__ import annotations

from cotdistill.data.adapter import NliAdapter


class Anli1(NliAdapter):
    """Adversarial NLI, round 1: train, valid and test as published."""

    name = "anli1"
    licence = "ANLI: CC BY-NC 4.0 (non-commercial use only); PaLM outputs: Apache-2.0"
    source = "Adversarial NLI round 1 (Nie et al. 2020), DSS release"

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return the rationale, before `So the answer is`, and the label after it.

        The output is cut at `Premise:`, where another question begins. As published, the last character is
        dropped from the label whatever it is (a full stop, unless the output was cut off). Both are empty
        where the phrase does not occur exactly once.
        """
        parts = output.split("Premise:", 1)[0].rstrip().split("So the answer is")
        if len(parts) != 2:
            return "", ""
        return parts[0].rstrip(), parts[1].lstrip()[:-1]


ADAPTER = Anli1()

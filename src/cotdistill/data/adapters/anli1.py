"""Adversarial NLI, round 1."""

from __future__ import annotations

from cotdistill.data.adapter import NliAdapter


class Anli1(NliAdapter):
    """Train, valid and test as published."""

    name = "anli1"
    licence = "ANLI: CC BY-NC 4.0 (non-commercial use only); PaLM outputs: Apache-2.0"
    source = "Adversarial NLI round 1 (Nie et al. 2020), DSS release"

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Before the next premise: the rationale, then the label after `So the answer is`.

        As published, the last character is dropped from the label whatever it is (a full stop, unless
        the output was cut off).
        """
        parts = output.split("Premise:", 1)[0].rstrip().split("So the answer is")
        if len(parts) != 2:
            return "", ""
        return parts[0].rstrip(), parts[1].lstrip()[:-1]


ADAPTER = Anli1()

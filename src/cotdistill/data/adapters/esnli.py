"""e-SNLI: natural language inference over image captions."""

from __future__ import annotations

from cotdistill.data.adapter import NliAdapter


class Esnli(NliAdapter):
    """e-SNLI: train, valid and test as published."""

    name = "esnli"
    licence = "e-SNLI: MIT; SNLI: CC BY-SA 4.0; PaLM outputs: Apache-2.0"
    source = "e-SNLI (Camburu et al. 2018) on SNLI (Bowman et al. 2015), DSS release"

    def parse_teacher(self, output: str) -> tuple[str, str]:
        """Return the text before `Answer:`, and the label between `Answer: ` and `Premise`.

        As published: outputs cut off inside the word keep labels such as "neutral\\n\\nPre", which count as
        wrong.
        """
        rationale = output.split("Answer:", 1)[0].rstrip()
        parts = output.split("Answer: ", 2)
        return rationale, parts[1].split("Premise", 1)[0].rstrip() if len(parts) > 1 else ""


ADAPTER = Esnli()

"""Single task: one target, the rationale and then the label, from one input (DSS, ablation)."""

from __future__ import annotations

from collections.abc import Mapping

from cotdistill.methods import Method, Task, TaskOutput, Term

BRIDGE = "So the answer is:"


class SingleTask(Method):
    """The method that minimises the cross-entropy of "rationale So the answer is: label" as one text."""

    reference = True
    tasks = (Task("rationale_label", prefix="", target=("rationale", BRIDGE, "label")),)

    def terms(self, outputs: Mapping[str, TaskOutput]) -> dict[str, Term]:
        return {"rationale_label": Term(outputs["rationale_label"].cross_entropy, 1.0)}

    def read_label(self, text: str) -> str:
        """Return what follows the last bridge; an empty string where the student never wrote it."""
        _, bridge, label = text.rpartition(BRIDGE)
        return label.strip() if bridge else ""


METHOD = SingleTask

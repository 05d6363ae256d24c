"""Standard finetuning: the label alone, no prefix (DSS, section 4, "standard finetuning")."""

from __future__ import annotations

from collections.abc import Mapping

from cotdistill.methods import Method, Task, TaskOutput, Term


class Finetune(Method):
    """The method that minimises the label's cross-entropy: with teacher labels, standard distillation."""

    reference = True
    tasks = (Task("label", prefix="", target=("label",)),)

    def terms(self, outputs: Mapping[str, TaskOutput]) -> dict[str, Term]:
        return {"label": Term(outputs["label"].cross_entropy, 1.0)}


METHOD = Finetune

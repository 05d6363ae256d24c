"""Distilling Step-by-Step (Hsieh et al. 2023): predict the label and write the rationale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from cotdistill.config.models import Number, Strict
from cotdistill.methods import Method, Task, TaskOutput, Term

LABEL = Task("label", prefix="predict: ", target=("label",))
RATIONALE = Task("rationale", prefix="explain: ", target=("rationale",))


class Settings(Strict):
    """Settings of `dss`."""

    alpha: Number = Field(0.5, ge=0, le=1)
    """weight of the label term; the rationale term weighs 1 - alpha"""


class DSS(Method):
    """The method that minimises `alpha * label + (1 - alpha) * rationale`, cross-entropies of the two tasks.

    This is equation 3 of Hsieh et al. 2023 with this weighting.
    """

    Settings: ClassVar[type[Strict]] = Settings
    reference = True
    tasks = (LABEL, RATIONALE)

    def terms(self, outputs: Mapping[str, TaskOutput]) -> dict[str, Term]:
        alpha = self.settings.alpha
        return {
            "label": Term(outputs["label"].cross_entropy, alpha),
            "rationale": Term(outputs["rationale"].cross_entropy, 1 - alpha),
        }


METHOD = DSS

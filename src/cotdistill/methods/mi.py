"""DSS plus a mutual-information term between the two tasks' outputs (Chen et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cotdistill import mutual_information
from cotdistill.config import bounds
from cotdistill.config.models import Number, Strict
from cotdistill.methods import Needs, TaskOutput, Term, dss

if TYPE_CHECKING:
    import torch


class Settings(dss.Settings):
    """Settings of `mi`."""

    beta: Number = Field(0.1, ge=0, le=bounds.LARGEST)
    """weight of the mutual-information term; 0 trains exactly as dss does and still logs the term"""
    variant: Literal["released", "paper"] = "released"
    """released: what the published code computes; paper: the bound as derived"""
    pooling: Literal["max", "mean"] = "max"
    """`paper` only: how the distributions of a target's positions become one"""
    stop_gradient: bool = True
    """`paper` only: no gradient flows to the label task"""


class MI(dss.DSS):
    """The method that minimises `dss + beta * mutual_information`.

    The term is a bound on I(Z;V) up to H(V) (Barber and Agakov 2003).
    """

    Settings: ClassVar[type[Strict]] = Settings

    def terms(self, outputs: Mapping[str, TaskOutput]) -> dict[str, Term]:
        import torch

        beta = self.settings.beta
        with torch.set_grad_enabled(beta > 0 and torch.is_grad_enabled()):
            value = self._mutual_information(outputs["label"], outputs["rationale"])
        # the term is a mean over examples: a micro-batch contributes its part of the batch
        term = Term(value * outputs["label"].share, beta)
        return {**super().terms(outputs), "mutual_information": term}

    @property
    def needs(self) -> Needs:
        if self.settings.variant == "released":
            # padding would change how the decoder's numbers are rounded, and so training without the term
            return Needs(pooling="max", padding=self.settings.beta > 0)
        return Needs(pooling=self.settings.pooling)

    def _mutual_information(self, label: TaskOutput, rationale: TaskOutput) -> torch.Tensor:
        assert label.pooled is not None and rationale.pooled is not None
        if self.settings.variant == "released":
            return mutual_information.released_from_pooled(label.pooled, rationale.pooled)
        return mutual_information.paper_from_pooled(
            label.pooled, rationale.pooled, self.settings.stop_gradient
        )


METHOD = MI

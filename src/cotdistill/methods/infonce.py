"""DSS plus InfoNCE between the two tasks' decoder states, with a learned critic (beyond the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from cotdistill.config import bounds
from cotdistill.config.models import Number
from cotdistill.methods import Needs, TaskOutput, dss, mi
from cotdistill.mutual_information.pooling import mean_state

if TYPE_CHECKING:
    import torch


class Settings(dss.Settings):
    """Settings of `infonce`."""

    beta: Number = Field(0.1, ge=0, le=bounds.LARGEST)
    """weight of the mutual-information term; 0 trains exactly as dss does and still logs the term"""
    stop_gradient: bool = False
    """no gradient of the term flows to the label task"""


class InfoNCE(mi.MI):
    """The method that minimises `dss + beta * mutual_information`, the term being InfoNCE's cross-entropy.

    The term is in nats. Z and V are the means of the decoder states over the rationale's and the label's
    positions. A critic f(z, v) = (A z + a) . (B v + b) / sqrt(d_model), learned with the student, is to find
    each example's v among those of its micro-batch: the term is the mean of -log softmax_j f(z_i, v_j) at j =
    i, and I(Z;V) >= log n - E[term] for n examples (van den Oord et al. 2018, equation 5). The negatives are
    those of the micro-batch alone: neither other micro-batches (`accumulation`) nor other processes add any,
    and a micro-batch of a single example gives 0.
    """

    Settings = Settings
    needs = Needs(hidden=True)
    contrastive = frozenset({"mutual_information"})

    def modules(self, d_model: int) -> torch.nn.Module:
        import torch

        return torch.nn.ModuleDict({
            task: torch.nn.Linear(d_model, d_model) for task in ("rationale", "label")
        })

    def _mutual_information(self, label: TaskOutput, rationale: TaskOutput) -> torch.Tensor:
        assert label.hidden is not None and rationale.hidden is not None
        critic = dict(self._own().named_children())
        v = mean_state(label.hidden, label.mask)
        if self.settings.stop_gradient:
            v = v.detach()
        z = critic["rationale"](mean_state(rationale.hidden, rationale.mask))
        scores = z @ critic["label"](v).T / z.shape[1] ** 0.5
        return -scores.log_softmax(1).diagonal().mean()


METHOD = InfoNCE

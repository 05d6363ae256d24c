"""DSS plus a Gaussian variational bound between the two tasks' decoder states (beyond the paper)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from cotdistill.config import bounds
from cotdistill.config.models import Number
from cotdistill.methods import Needs, TaskOutput, dss, mi
from cotdistill.mutual_information.pooling import mean_state

if TYPE_CHECKING:
    import torch

LEAST = -5.0
"""least log sigma: label states that are all alike would drive it, and the term, to minus infinity"""


class Settings(dss.Settings):
    """Settings of `gaussian`."""

    beta: Number = Field(0.1, ge=0, le=bounds.LARGEST)
    """weight of the mutual-information term; 0 trains exactly as dss does and still logs the term"""


class Gaussian(mi.MI):
    """The method that minimises `dss + beta * mutual_information`, the term being -E[log q(v|z)] / d_model.

    Z and V are the means of the decoder states over the rationale's and the label's positions, and q(v|z) =
    N(v; W z + b, diag sigma^2) with W, b and log sigma learned with the student. So I(Z;V) >= H(V) - d_model
    * E[term] (Barber and Agakov 2003, equation 3). The term is per dimension, so that a beta means the same
    at every width. No gradient reaches the label task: H(V) is not part of the term, and a smaller V alone
    would lower it.
    """

    Settings = Settings
    needs = Needs(hidden=True)

    def modules(self, d_model: int) -> torch.nn.Module:
        import torch

        return torch.nn.ParameterDict({
            "weight": torch.randn(d_model, d_model) / d_model**0.5,
            "bias": torch.zeros(d_model),
            "log_sigma": torch.zeros(d_model),
        })

    def _mutual_information(self, label: TaskOutput, rationale: TaskOutput) -> torch.Tensor:
        assert label.hidden is not None and rationale.hidden is not None
        q = dict(self._own().named_parameters())
        v = mean_state(label.hidden, label.mask).detach()
        mean = mean_state(rationale.hidden, rationale.mask) @ q["weight"].T + q["bias"]
        log_sigma = q["log_sigma"].clamp_min(LEAST)
        squares = ((v - mean) / log_sigma.exp()) ** 2
        return (squares / 2 + log_sigma).mean() + math.log(2 * math.pi) / 2


METHOD = Gaussian

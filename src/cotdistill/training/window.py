"""The numbers of the steps since the last logged line: loss, terms and gradient norm of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch


@dataclass
class Window:
    """A vector (n terms + 1,) for each step, kept on the device until its numbers are needed."""

    steps: list[torch.Tensor] = field(default_factory=list)

    def add(self, values: torch.Tensor) -> None:
        """Add a step's vector."""
        self.steps.append(values)

    def stack(self) -> torch.Tensor:
        """Return (steps, n + 1) on the CPU; empty where there is no step."""
        return torch.stack(self.steps).cpu() if self.steps else torch.zeros(0)

    def average(self, device: torch.device) -> list[float]:
        """Return the means over the steps: of each term, then of the gradient norm."""
        means: list[float] = torch.stack([values.to(device) for values in self.steps]).mean(0).tolist()
        return means

    def find_fault(self, names: list[str], step: int, device: torch.device) -> str | None:
        """Return which number of which step is not finite; None where all are, or there is no step.

        names: of the terms; step: number of the last step.
        """
        if not self.steps:
            return None
        values = torch.stack([value.to(device) for value in self.steps])
        if bool(values.isfinite().all()):
            return None
        row = int((~values.isfinite().all(1)).nonzero()[0])
        columns = [*(f"loss term '{name}'" for name in names), "gradient norm"]
        found = dict(zip(columns, values[row].tolist(), strict=True))
        bad = [name for name, value in found.items() if not math.isfinite(value)]
        first = next((name for name in bad if name != "loss term 'total'"), bad[0])
        number = step - len(self.steps) + 1 + row
        return f"{first} is not finite at step {number} (value {found[first]})"

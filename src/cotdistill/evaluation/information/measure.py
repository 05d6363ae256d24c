"""Mutual information between a student's two tasks on held-out examples.

Z is of the rationale task, V of the label task, each from one teacher-forced pass with the gold label and
the teacher's rationale as targets. Two representations of a task: `decoder`, the mean over a target's real
positions of the decoder's last states, and `output`, the pooled distribution that the loss of `mi` uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cotdistill import methods
from cotdistill.common import stopping
from cotdistill.common.seeds import derive
from cotdistill.data.batches import Collator
from cotdistill.evaluation.information.estimators import ESTIMATORS, LEAST, Estimate
from cotdistill.methods import Method, Needs, Task
from cotdistill.mutual_information.pooling import state
from cotdistill.students.packed.step import observed

if TYPE_CHECKING:
    from cotdistill.data.prepared import Prepared
    from cotdistill.runs.grid import Run

Pair = tuple[torch.Tensor, torch.Tensor]
"""Z and V, a row an example"""

REPRESENTATIONS = ("decoder", "output")
DIMENSIONS = 64
"""of the output distributions once projected"""
AT_THE_END = 2048
"""most test examples that are measured"""


def measure(model: torch.nn.Module, run: Run, prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """I(Z;V) on test, by representation and estimator: value, low, high, n, ceiling, bound (nats).

    Empty where it is not measured: the method has not both tasks, fewer than LEAST test examples have a
    rationale, or `evaluation.mutual_information` is 0. Raises Preempted when asked to stop.
    """
    method = methods.build(run.method.method, run.method.settings)
    if not measurable(run, method):
        return {}
    found = Meter(run, prepared, method, "test", AT_THE_END, device).estimates(model)
    return {
        representation: {name: ESTIMATORS[name].described(each) for name, each in of.items()}
        for representation, of in (found or {}).items()
    }


def measurable(run: Run, method: Method) -> bool:
    """Whether the method has a label and a rationale task, and the measurement is on."""
    return run.experiment.evaluation.mutual_information > 0 and _tasks(method) is not None


class Meter:
    """Measures students of one run on the same examples of a split: those of every run of its dataset."""

    def __init__(
        self, run: Run, prepared: Prepared, method: Method, split: str, most: int, device: torch.device
    ) -> None:
        """most: examples, drawn from those that have a rationale."""
        training = run.training
        self.method, self.device, self.precision = method, device, training.precision
        self.collator = Collator(
            prepared, split, "gold", training.max_input_tokens, training.max_target_tokens
        )
        # what training holds at once, with gradients, fits
        self.batch_size = max(1, training.batch_size // (training.accumulation * training.gpus))
        lengths = [int(length) for length in np.diff(self.collator.fields["rationale"].offsets)]
        told = torch.tensor([row for row, length in enumerate(lengths) if length], dtype=torch.long)
        self.seed = derive("mutual information", dataset=run.dataset.name, split=split)
        shuffled = torch.randperm(len(told), generator=torch.Generator().manual_seed(self.seed))
        self.rows: list[int] = sorted(told[shuffled[:most]].tolist(), key=lambda row: (-lengths[row], row))

    def estimates(self, model: torch.nn.Module) -> dict[str, dict[str, Estimate]] | None:
        """By representation and estimator; None with fewer than LEAST examples."""
        if len(self.rows) < LEAST:
            return None
        pairs = represent(
            model, self.method, self.collator, self.rows, self.device, self.precision, self.batch_size
        )
        return {
            name: {each.name: each.estimate(*pairs[name], self.seed) for each in ESTIMATORS.values()}
            for name in REPRESENTATIONS
        }

    def line(self, model: torch.nn.Module) -> dict[str, float | None]:
        """The estimates as in a history: `mi/<representation>/<estimator>`, null with too few examples."""
        found = self.estimates(model)
        return {
            f"mi/{name}/{estimator}": found[name][estimator].value if found else None
            for name in REPRESENTATIONS
            for estimator in ESTIMATORS
        }


@torch.no_grad()
def represent(
    model: torch.nn.Module, method: Method, collator: Collator, rows: Sequence[int], device: torch.device,
    precision: str = "fp32", batch_size: int = 64,
) -> dict[str, Pair]:
    """Z and V of these examples: `decoder` (n, d_model) and `output` (n, DIMENSIONS), float32 on the CPU.

    An output distribution (maxima over the real positions, normalised) is given by the square roots of
    its V probabilities under one fixed random projection: its distances are about Hellinger's, and a
    function of a representation has no more information than it. Neither gradients nor the global random
    state are touched, and the model is in its mode again after. Raises ValueError for a method without
    both tasks, Preempted when asked to stop.
    """
    tasks = _tasks(method)
    if tasks is None:
        raise ValueError("the method has not both a label and a rationale task")
    training = model.training
    model.eval()
    try:
        parts = [_of_task(model, task, collator, rows, device, precision, batch_size) for task in tasks]
    finally:
        model.train(training)
    return {name: (parts[0][name], parts[1][name]) for name in REPRESENTATIONS}


def _tasks(method: Method) -> tuple[Task, Task] | None:
    """The tasks of Z and of V."""
    rationale, label = method.rationale_task, method.label_task
    return (rationale, label) if rationale and label else None


def _of_task(
    model: torch.nn.Module, task: Task, collator: Collator, rows: Sequence[int], device: torch.device,
    precision: str, batch_size: int,
) -> dict[str, torch.Tensor]:
    found: dict[str, list[torch.Tensor]] = {name: [] for name in REPRESENTATIONS}
    projection: torch.Tensor | None = None
    for start in range(0, len(rows), batch_size):
        stopping.check()
        batch = collator.batch(task, rows[start : start + batch_size])
        for output in observed(model, batch, Needs(hidden=True, pooling="max"), precision):
            assert output.hidden is not None and output.pooled is not None
            distribution = output.pooled / output.pooled.sum(1, keepdim=True)
            if projection is None:
                projection = _projection(distribution.shape[1]).to(device)
            found["decoder"].append(state(output.hidden, output.mask).cpu())
            found["output"].append((distribution.sqrt() @ projection).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _projection(vocabulary: int) -> torch.Tensor:
    """(V, DIMENSIONS), the same for every run of a vocabulary (Johnson and Lindenstrauss 1984)."""
    generator = torch.Generator().manual_seed(derive("output projection", vocabulary=vocabulary))
    return torch.randn(vocabulary, DIMENSIONS, generator=generator) / DIMENSIONS**0.5

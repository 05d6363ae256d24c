"""Measure the mutual information between a student's two tasks on held-out examples.

Z is of the rationale task, V of the label task, each from one teacher-forced pass with the gold label and
the teacher's rationale as targets. Two representations of a task: `decoder`, the mean over a target's real
positions of the decoder's last states, and `output`, the pooled distribution that the loss of `mi` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cotdistill.common import stopping
from cotdistill.common.seeds import derive
from cotdistill.data.batches import Collator
from cotdistill.evaluation.information.estimate import Estimate
from cotdistill.evaluation.information.estimators import ESTIMATORS
from cotdistill.evaluation.information.gaussian_fit import estimate_gaussian
from cotdistill.evaluation.information.infonce_bound import estimate_infonce
from cotdistill.methods import Method, Needs, Task
from cotdistill.mutual_information.pooling import mean_state
from cotdistill.students.engines import make_learner

if TYPE_CHECKING:
    from cotdistill.data.prepared import Prepared
    from cotdistill.runs.grid import Run

Pair = tuple[torch.Tensor, torch.Tensor]
"""Z and V, a row an example"""

LEAST = 40
"""fewest samples that are estimated from"""
REPRESENTATIONS = ("decoder", "output")
DIMENSIONS = 64
"""of the output distributions once projected"""
AT_THE_END = 2048
"""most test examples that are measured"""


def estimate(name: str, z: torch.Tensor, v: torch.Tensor, seed: int) -> Estimate:
    """Return the estimate of I(Z;V) by the estimator `name`, from paired rows z: (n, d) and v: (n, e).

    seed: of the split, for an estimator that fits on one part and reads on another. Computed in float64 on
    the CPU; the global random state is not touched. Raises ValueError below LEAST rows, or unpaired.
    """
    if len(z) != len(v) or len(z) < LEAST:
        raise ValueError(f"{len(z)} and {len(v)} samples: expected pairs, at least {LEAST}")
    computed: dict[str, Callable[..., Estimate]] = {
        "infonce": partial(estimate_infonce, seed=seed), "gaussian": estimate_gaussian,
    }  # fmt: skip
    return computed[name](z.double().cpu(), v.double().cpu())


def is_measured(run: Run, method: Method) -> bool:
    """Whether the method has a label and a rationale task, and the measurement is on."""
    return run.experiment.evaluation.mutual_information > 0 and _find_tasks(method) is not None


class Meter:
    """The examples of a split on which a run's students are measured, the same in every run of a dataset."""

    def __init__(
        self, run: Run, prepared: Prepared, method: Method, split: str, most: int, engine: str
    ) -> None:
        """Choose the examples. most: how many at most, drawn from those that have a rationale."""
        training = run.training
        self.method, self.engine, self.precision = method, engine, training.precision
        self.collator = Collator(
            prepared, split, "gold", training.max_input_tokens, training.max_target_tokens
        )
        # as many examples as training passes at once: those fit in memory, even with gradients
        self.batch_size = max(1, training.batch_size // (training.accumulation * training.gpus))
        lengths = [int(length) for length in np.diff(self.collator.fields["rationale"].offsets)]
        with_rationale = torch.tensor([row for row, length in enumerate(lengths) if length], dtype=torch.long)
        self.seed = derive("mutual information", dataset=run.dataset.name, split=split)
        order = torch.randperm(len(with_rationale), generator=torch.Generator().manual_seed(self.seed))
        chosen = with_rationale[order[:most]].tolist()
        self.rows: list[int] = sorted(chosen, key=lambda row: (-lengths[row], row))

    def estimate_all(self, model: torch.nn.Module) -> dict[str, dict[str, Estimate]] | None:
        """Return estimates by representation and estimator; None with fewer than LEAST examples."""
        if len(self.rows) < LEAST:
            return None
        pairs = represent(
            model, self.method, self.collator, self.rows, self.engine, self.precision, self.batch_size
        )
        return {
            name: {each: estimate(each, *pairs[name], self.seed) for each in ESTIMATORS}
            for name in REPRESENTATIONS
        }

    def make_history_values(self, model: torch.nn.Module) -> dict[str, float | None]:
        """Return the estimates by their names in a history, `mi/<representation>/<estimator>`.

        All are None with too few examples.
        """
        found = self.estimate_all(model)
        return {
            f"mi/{name}/{estimator}": found[name][estimator].value if found else None
            for name in REPRESENTATIONS
            for estimator in ESTIMATORS
        }


def measure_test(
    model: torch.nn.Module, run: Run, prepared: Prepared, method: Method, engine: str
) -> dict[str, Any]:
    """Return I(Z;V) on test, by representation and estimator: value, low, high, n, ceiling, bound (nats).

    Empty where it is not measured: the method has not both tasks, fewer than LEAST test examples have a
    rationale, or `evaluation.mutual_information` is 0. Raises Preempted when asked to stop.
    """
    if not is_measured(run, method):
        return {}
    found = Meter(run, prepared, method, "test", AT_THE_END, engine).estimate_all(model)
    return {
        representation: {name: _describe(name, each) for name, each in estimates.items()}
        for representation, estimates in (found or {}).items()
    }


def _describe(estimator: str, found: Estimate) -> dict[str, Any]:
    """Return an estimate as plain values, with what bounds it."""
    values = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    ceiling = {} if found.ceiling is None else {"ceiling": found.ceiling}
    return {**values, **ceiling, "bound": ESTIMATORS[estimator].bound}


@torch.no_grad()
def represent(
    model: torch.nn.Module, method: Method, collator: Collator, rows: Sequence[int], engine: str,
    precision: str = "fp32", batch_size: int = 64,
) -> dict[str, Pair]:  # fmt: skip
    """Return Z and V of these examples, (n, d_model) for `decoder` and (n, DIMENSIONS) for `output`.

    They are float32 on the CPU. An output distribution (maxima over the real positions, normalised) is given
    by the square roots of its V probabilities under one fixed random projection: its distances are about
    Hellinger's, and a function of a representation has no more information than it. Neither gradients nor the
    global random state are changed, and the model is returned to its mode. Raises ValueError for a method
    without both tasks, Preempted when asked to stop.
    """
    tasks = _find_tasks(method)
    if tasks is None:
        raise ValueError("the method has not both a label and a rationale task")
    training = model.training
    model.eval()
    try:
        parts = [
            _represent_task(model, task, collator, rows, engine, precision, batch_size) for task in tasks
        ]
    finally:
        model.train(training)
    return {name: (parts[0][name], parts[1][name]) for name in REPRESENTATIONS}


def _find_tasks(method: Method) -> tuple[Task, Task] | None:
    """Return the tasks of Z and of V; None where the method has not both."""
    rationale, label = method.rationale_task, method.label_task
    return (rationale, label) if rationale and label else None


def _represent_task(
    model: Any, task: Task, collator: Collator, rows: Sequence[int], engine: str, precision: str,
    batch_size: int,
) -> dict[str, torch.Tensor]:  # fmt: skip
    learner = make_learner(engine, model, precision)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in REPRESENTATIONS}
    projection: torch.Tensor | None = None
    for start in range(0, len(rows), batch_size):
        stopping.check()
        batch = collator.batch(task, rows[start : start + batch_size])
        for output in learner.observe(batch, Needs(hidden=True, pooling="max")):
            assert output.hidden is not None and output.pooled is not None
            distribution = output.pooled / output.pooled.sum(1, keepdim=True)
            if projection is None:
                projection = _make_projection(distribution.shape[1]).to(distribution.device)
            found["decoder"].append(mean_state(output.hidden, output.mask).cpu())
            found["output"].append((distribution.sqrt() @ projection).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _make_projection(vocabulary: int) -> torch.Tensor:
    """Return (V, DIMENSIONS), the same for every run of a vocabulary (Johnson and Lindenstrauss 1984)."""
    generator = torch.Generator().manual_seed(derive("output projection", vocabulary=vocabulary))
    return torch.randn(vocabulary, DIMENSIONS, generator=generator) / DIMENSIONS**0.5

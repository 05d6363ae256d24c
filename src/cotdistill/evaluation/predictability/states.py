"""Represent a student's two tasks on given examples: Z of the rationale task, V of the label task.

Two representations of a task: `decoder`, the mean over a target's positions of the decoder's last states, and
`output`, the pooled distribution that the loss of `mi` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from cotdistill.common import stopping
from cotdistill.common.seeds import derive
from cotdistill.data.batches import Batch, Collator
from cotdistill.evaluation.predictability import REPRESENTATIONS
from cotdistill.methods import Method, Needs, Task
from cotdistill.mutual_information.pooling import mean_state
from cotdistill.students.engines import make_learner, make_writer

Pair = tuple[torch.Tensor, torch.Tensor]
"""Z and V, a row an example"""
Written = Mapping[str, Sequence[torch.Tensor]]
"""token ids that a student wrote for each of some examples, (T,) int64, by task name"""

DIMENSIONS = 64
"""of the output distributions once projected"""


@torch.no_grad()
def represent(
    model: torch.nn.Module, method: Method, collator: Collator, rows: Sequence[int], engine: str,
    precision: str = "fp32", batch_size: int = 64, written: Written | None = None,
    check: Callable[[], None] = stopping.check,
) -> dict[str, Pair]:  # fmt: skip
    """Return Z and V of these examples, (n, d_model) for `decoder` and (n, DIMENSIONS) for `output`.

    written: targets in place of the gold label and the teacher's rationale. check: called before each batch.

    They are float32 on the CPU. An output distribution (maxima over the real positions, normalised) is given
    by the square roots of its V probabilities under one fixed random projection: its distances are about
    Hellinger's, and a function of a representation has no more information than it. Neither gradients nor the
    global random state are changed, and the model is returned to its mode. Raises ValueError for a method
    without both tasks, and what `check` raises (by default Preempted, when asked to stop).
    """
    tasks = find_tasks(method)
    if tasks is None:
        raise ValueError("the method has not both a label and a rationale task")
    training = model.training
    model.eval()
    learner = make_learner(engine, model, precision)
    parts = []
    try:
        for task in tasks:
            found: dict[str, list[torch.Tensor]] = {name: [] for name in REPRESENTATIONS}
            for start in range(0, len(rows), batch_size):
                check()
                batch = collator.batch(task, rows[start : start + batch_size])
                if written is not None:
                    batch = _replace_targets(batch, written[task.name][start : start + batch_size])
                for name, values in _observe(learner, batch).items():
                    found[name] += values
            parts.append({name: torch.cat(values) for name, values in found.items()})
    finally:
        model.train(training)
    return {name: (parts[0][name], parts[1][name]) for name in REPRESENTATIONS}


def find_tasks(method: Method) -> tuple[Task, Task] | None:
    """Return the tasks of Z and of V; None where the method has not both."""
    rationale, label = method.rationale_task, method.label_task
    return (rationale, label) if rationale and label else None


def write_targets(
    model: Any, tasks: Sequence[tuple[Task, int]], collator: Collator, rows: Sequence[int], engine: str,
    precision: str, batch_size: int,
) -> Written:  # fmt: skip
    """Return what the student writes for these examples, greedily, the end token included.

    tasks: each with the most tokens that are written for it. Raises Preempted when asked to stop.
    """
    training = model.training
    model.eval()
    try:
        writer = make_writer(engine, model, precision)
        found: dict[str, list[torch.Tensor]] = {task.name: [] for task, _ in tasks}
        for task, longest in tasks:
            for start in range(0, len(rows), batch_size):
                stopping.check()
                inputs = [collator.input_ids(task, row) for row in rows[start : start + batch_size]]
                read = writer.read([torch.from_numpy(ids) for ids in inputs])
                written = writer.write(read, longest, collator.end)
                found[task.name] += [torch.tensor(ids) for ids, _ in written]
    finally:
        model.train(training)
    return found


def _replace_targets(batch: Batch, targets: Sequence[torch.Tensor]) -> Batch:
    return Batch(batch.inputs, list(targets), max(map(len, targets)))


def _observe(learner: Any, batch: Batch) -> dict[str, list[torch.Tensor]]:
    """Return each representation of a batch's examples, in parts, on the CPU."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in REPRESENTATIONS}
    for output in learner.observe(batch, Needs(hidden=True, pooling="max")):
        assert output.hidden is not None and output.pooled is not None
        distribution = output.pooled / output.pooled.sum(1, keepdim=True)
        projection = _make_projection(distribution.shape[1]).to(distribution.device)
        found["decoder"].append(mean_state(output.hidden, output.mask).cpu())
        found["output"].append((distribution.sqrt() @ projection).cpu())
    return found


@cache
def _make_projection(vocabulary: int) -> torch.Tensor:
    """Return (V, DIMENSIONS), the same for every run of a vocabulary (Johnson and Lindenstrauss 1984)."""
    generator = torch.Generator().manual_seed(derive("output projection", vocabulary=vocabulary))
    return torch.randn(vocabulary, DIMENSIONS, generator=generator) / DIMENSIONS**0.5

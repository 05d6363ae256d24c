"""Measure how well a student's states of one task tell those of the other, beside three controls.

Z is of the rationale task, V of the label task. Teacher-forced, their targets are the teacher's rationale and
the gold label; free-running, what the student itself writes. The controls are measured alike, of the same
examples, with critics of their own: the same student before training, partners shuffled among the examples
whose V has the same target, and all partners shuffled.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cotdistill import students
from cotdistill.common.errors import UserError
from cotdistill.common.seeds import derive
from cotdistill.data.batches import Collator
from cotdistill.data.tasks import limit_answer
from cotdistill.evaluation.predictability import CANDIDATES, CEILING, FREE_RUNNING, REPRESENTATIONS
from cotdistill.evaluation.predictability.controls import cut_into_halves, join_units, shuffle_within
from cotdistill.evaluation.predictability.critic import Found, find_partners
from cotdistill.evaluation.predictability.states import (
    Pair,
    Written,
    find_tasks,
    represent,
    write_targets,
)
from cotdistill.methods import Method

if TYPE_CHECKING:
    from cotdistill.data.prepared import Prepared
    from cotdistill.runs.grid import Run

LEAST_MOVED = 0.5
"""part of the examples that must get another's partner for a control to be one"""
ROUNDING = 0.05
"""nats: states of equal inputs differ by rounding, most with bf16"""


def is_measured(run: Run, method: Method) -> bool:
    """Whether the method has a label and a rationale task, and the measurement is on."""
    return run.experiment.evaluation.predictability > 0 and find_tasks(method) is not None


class Meter:
    """The examples of a split on which a run's students are measured, the same in every run of a dataset.

    absence: why nothing can be measured on this split; empty where it can.
    """

    def __init__(self, run: Run, prepared: Prepared, method: Method, split: str, engine: str) -> None:
        """Draw as many examples as the config says, from those that have a rationale."""
        training = run.training
        self.run, self.prepared, self.method, self.engine = run, prepared, method, engine
        self.split, self.precision = split, training.precision
        self.collator = Collator(
            prepared, split, "gold", training.max_input_tokens, training.max_target_tokens
        )
        # as many examples as training passes at once: those fit in memory, even with gradients
        self.batch_size = max(1, training.batch_size // (training.accumulation * training.gpus))
        self.seed = derive("mutual information", dataset=run.dataset.name, split=split)
        self.rows = self._draw_rows(run.experiment.evaluation.predictability)
        inputs, groups = self._read_column("input"), self._read_column("group")
        self.units = join_units(inputs, *([groups] if groups else []))
        self.halves = cut_into_halves(self.units, self.seed)
        self.absence = self._explain_absence(run.experiment.evaluation.predictability)
        self.untrained: dict[str, Found] | None = None

    def _draw_rows(self, most: int) -> list[int]:
        lengths = np.diff(self.collator.fields["rationale"].offsets)
        with_rationale = torch.tensor(np.flatnonzero(lengths))
        order = torch.randperm(len(with_rationale), generator=torch.Generator().manual_seed(self.seed))
        chosen = with_rationale[order[:most]].tolist()
        return sorted(chosen, key=lambda row: (-lengths[row], row))

    def _read_column(self, name: str) -> list[str]:
        """Return a column of the chosen rows; empty where the prepared data have none of that name."""
        table = self.prepared.table(self.split)
        return table.column(name).take(self.rows).to_pylist() if name in table.column_names else []

    def _explain_absence(self, wanted: int) -> str:
        if len(self.rows) < wanted:
            return (
                f"{len(self.rows)} examples of {self.split} have a rationale, fewer than the {wanted} of "
                "evaluation.predictability"
            )
        if min(map(len, self.halves)) < CANDIDATES:
            return (
                f"too many of the {wanted} examples of {self.split} share an input or a group: no two halves "
                f"without a common one have {CANDIDATES} each"
            )
        return ""

    def represent(
        self, model: torch.nn.Module, written: Written | None = None, **more: Any
    ) -> dict[str, Pair]:
        """Return the examples' Z and V by representation; see `states.represent`."""
        return represent(
            model, self.method, self.collator, self.rows, self.engine, self.precision, self.batch_size,
            written, **more,
        )  # fmt: skip

    def write(self, model: torch.nn.Module) -> Written:
        """Return what a student writes for both tasks, by task name. Raises Preempted when asked to stop."""
        longest = self.run.experiment.evaluation.max_new_tokens, self.run.training.max_target_tokens
        tasks = [(task, limit_answer(task, *longest)) for task in find_tasks(self.method) or ()]
        return write_targets(
            model, tasks, self.collator, self.rows, self.engine, self.precision, self.batch_size
        )

    def load_untrained(self, device: torch.device) -> torch.nn.Module:
        """Return the run's student as training starts from it. Raises UserError as `students.load` does."""
        return students.load(self.run.student, self.prepared.manifest, self.run.repetition).to(device)

    def measure_untrained(self, device: torch.device) -> None:
        """Measure the untrained student for later, when there is no other in memory.

        Is not stopped: a single process of several would leave the others waiting.
        """
        self.untrained = self.find_partners(self.represent(self.load_untrained(device), check=lambda: None))

    def measure(
        self, pairs: dict[str, Pair], untrained: dict[str, Found] | None, written: Written | None = None
    ) -> dict[str, dict[str, Any]]:
        """Return by representation what is found, what of each control, and the excess over the controls.

        untrained: of the same student before training; without it there is no excess. written: what the
        student wrote, where that was the target.
        """
        same, moved = self.shuffle_labels(written)
        every, _ = shuffle_within([0] * len(self.rows), self.units, self.seed)
        here, mixed = self.find_partners(pairs), self.find_partners(pairs, every)
        alike = self.find_partners(pairs, same) if moved >= LEAST_MOVED else None
        found = {}
        for name, own in here.items():
            beside = {"untrained": untrained, "same_label": alike}
            known = [each[name] for each in beside.values() if each] if untrained else []
            found[name] = {
                **asdict(own),
                **{key: asdict(each[name]) if each else None for key, each in beside.items()},
                "shuffled": asdict(mixed[name]),
                "excess": own.share - max(each.share for each in known) if known else None,
                "excess_retrieval": own.retrieval - max(each.retrieval for each in known) if known else None,
            }
        return found

    def shuffle_labels(self, written: Written | None = None) -> tuple[torch.Tensor, float]:
        """Return a permutation among the examples whose V has one target, and the part that it moves."""
        tasks = find_tasks(self.method)
        assert tasks is not None
        label = tasks[1]
        if written is None:
            targets = [tuple(self.collator.target_ids(label, row).tolist()) for row in self.rows]
        else:
            targets = [tuple(ids.tolist()) for ids in written[label.name]]
        return shuffle_within(targets, self.units, self.seed)

    def find_partners(
        self, pairs: dict[str, Pair], permutation: torch.Tensor | None = None
    ) -> dict[str, Found]:
        """Return how well partners are found, by representation; `permutation` gives each Z another's V.

        Raises UserError for an estimate that cannot be.
        """
        found = {}
        for name, (z, v) in pairs.items():
            v = v if permutation is None else v[permutation]
            found[name] = find_partners(z, v, self.halves, self.seed)
            where = f"{self.run.id}: {self.split}, {REPRESENTATIONS[name]}"
            check_ceiling(found[name], self._count_distinct(), where)
        return found

    def _count_distinct(self) -> int:
        """Return how many different Z, or V where these are fewer, the examples can have at most."""
        inputs = self._read_column("input")
        targets = (self._read_column("rationale"), self._read_column("label"))
        return min(len(set(zip(inputs, each, strict=True))) for each in targets)

    def make_history_values(self, model: torch.nn.Module) -> dict[str, float | None]:
        """Return what a validation tells, as `valid/predictability/<representation>/<number>`."""
        found = self.measure(self.represent(model), self.untrained)
        return {
            f"valid/predictability/{name}/{key}": values[key]
            for name, values in found.items()
            for key in ("share", "retrieval", "excess")
        }


def check_ceiling(found: Found, distinct: int, where: str) -> None:
    """Raise UserError for an estimate above what `distinct` different states can tell of each other."""
    nats = found.share * CEILING
    if nats > math.log(distinct) + ROUNDING:
        raise UserError(
            f"{where}: predictability of {nats:.2f} nats, expected at most log({distinct}) = "
            f"{math.log(distinct):.2f} of {distinct} distinct examples; this is a fault of the measurement: "
            "please report it, and set evaluation.predictability to 0 to go on without it"
        )


def measure_test(
    model: torch.nn.Module, run: Run, prepared: Prepared, method: Method, engine: str
) -> dict[str, Any]:
    """Return the predictability on test: numbers of each representation and control, n, and `reasons`.

    `reasons` says why what is absent (or None) was not measured. Empty where the method has not both tasks,
    or `evaluation.predictability` is 0. Raises Preempted when asked to stop; UserError for an estimate
    that cannot be.
    """
    if not is_measured(run, method):
        return {}
    meter = Meter(run, prepared, method, "test", engine)
    reasons = {}
    if absence := Meter(run, prepared, method, "valid", engine).absence:
        reasons["over training"] = absence
    if meter.absence:
        return {"reasons": {"test": meter.absence, **reasons}}
    found: dict[str, Any] = {"n": len(meter.rows), "candidates": CANDIDATES}
    pairs, device = meter.represent(model), next(model.parameters()).device
    try:
        before: torch.nn.Module | None = meter.load_untrained(device)
    except UserError as error:
        before, reasons["untrained"] = None, str(error)
    found |= _measure_beside(meter, pairs, before, None, reasons)
    if run.experiment.evaluation.free_running:
        written = meter.write(model)
        pairs = meter.represent(model, written)
        found[FREE_RUNNING] = _measure_beside(meter, pairs, before, written, reasons)
    return {**found, **({"reasons": reasons} if reasons else {})}


def _measure_beside(
    meter: Meter, pairs: dict[str, Pair], before: torch.nn.Module | None, written: Written | None,
    reasons: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Return the numbers of a student's states, with those of the student `before` training as a control."""
    untrained = None
    if before is not None:
        own = None if written is None else meter.write(before)
        untrained = meter.find_partners(meter.represent(before, own))
    moved = meter.shuffle_labels(written)[1]
    if moved < LEAST_MOVED:
        what = "same_label" if written is None else f"{FREE_RUNNING}/same_label"
        reasons[what] = (
            f"{moved:.0%} of the examples share their label with another input, expected at least "
            f"{LEAST_MOVED:.0%}; the excess is over the untrained student alone"
        )
    return {**meter.measure(pairs, untrained, written), "moved": moved}

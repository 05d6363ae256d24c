"""Optimise one run's student: steps, validation, the best checkpoint, and the state to resume from.

This module knows neither Snakemake nor MLflow, generates no text and needs no network: the function that
validates is an argument. The job around it (`jobs.train`) holds the lease and the device, and writes the
outputs.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cotdistill import methods, students
from cotdistill.common import stopping
from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, hash_tree, sweep
from cotdistill.common.seeds import derive
from cotdistill.data.batches import Batch, Collator, Order
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import choose_subset
from cotdistill.runs.grid import Run
from cotdistill.runs.history import History
from cotdistill.runs.state import Progress, State
from cotdistill.students.engines import make_learner
from cotdistill.students.interface import Whole
from cotdistill.training import devices
from cotdistill.training.window import Window

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Validate = Callable[["PreTrainedModel"], dict[str, float | None]]
"""numbers of a student on the validation split, by their names in the history; `valid/accuracy` is one"""


class Trainer:
    """One run in training: its model, optimiser, data and state, and the loop over steps.

    engine: the name of the one that computes the passes. origin: digest of code, data and initial weights; a
    state with another is not resumed. guard: raises where this process may no longer write the run's folder.
    tell: is called after each step with how far the run is. With several processes each has a trainer, and
    the first writes.
    """

    def __init__(
        self, run: Run, device: torch.device, engine: str, origin: str = "", *,
        guard: Callable[[], None] = lambda: None, tell: Callable[..., None] = lambda **about: None,
    ) -> None:  # fmt: skip
        self.run, self.device, self.settings = run, device, run.training
        self.guard, self.tell = guard, tell
        self.leader = devices.rank() == 0
        prepared = Prepared(run.prepared)
        self.method = methods.build(run.method.method, run.method.settings)
        self.collator = Collator(
            prepared, "train", run.labels, self.settings.max_input_tokens, self.settings.max_target_tokens
        )
        rows = choose_subset(prepared.manifest["sizes"]["train"], run.fraction, run.seed, run.dataset.name)
        self.order = Order(rows, self.settings.batch_size, run.dataset.name, run.seed)
        self.model: Any = students.load(run.student, prepared.manifest, run.repetition).to(device)
        self.trained = self._join_own_modules()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        learned = self.method.learned
        self.own_parameters = list(learned.parameters()) if learned is not None else []
        self.optimizer = torch.optim.AdamW(
            self.parameters + self.own_parameters, lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay, fused=True,
        )  # fmt: skip
        self.learner = make_learner(engine, self.model, self.settings.precision)
        self.folder = run.state
        self.state = State(self.folder, run.hash, origin)
        self.history = History(self.folder / run.files.history.name)
        self.progress = Progress()
        self.window = Window()
        self.saved_at = time.monotonic()
        self.leaving = devices.Agreement(device)

    def _join_own_modules(self) -> torch.nn.Module:
        """Return all that is trained and saved in a state: the student, and what the method learns with."""
        self.method.equip(self.model.config.d_model, derive("method's modules", **self.run.repetition))
        if self.method.learned is None:
            return self.model
        return torch.nn.ModuleDict({"student": self.model, "method": self.method.learned.to(self.device)})

    def fit(self, validate: Validate) -> None:
        """Train to the end, from the newest sound state if there is one.

        validate: returns the numbers of a model on the validation split. Raises UserError for a NaN loss, a
        full disk, or states that processes do not share; Preempted, with the state saved, when a signal asked
        to stop.
        """
        done = self._restore(validate)
        clock = time.perf_counter() - self.progress.seconds
        with self._make_bar() as bar:
            while not done:
                self.progress.step += 1
                self.window.add(self.take_step(self.progress.step))
                self.progress.seconds = time.perf_counter() - clock
                bar.update()
                done = self._settle(self.progress.step, validate)

    def find_best_checkpoint(self) -> Path:
        """Return the folder of the best checkpoint on validation. Raises UserError where it is corrupt."""
        self._check_best(self.progress)
        return self._name_best(self.progress.best_step)

    def drop_states(self) -> None:
        """Remove the states and best checkpoints, which nobody needs once the outputs are written."""
        for path in [*self.folder.glob("step-*"), *self.folder.glob("best-*")]:
            shutil.rmtree(path)

    def _restore(self, validate: Validate) -> bool:
        """Load the newest sound state, if there is one; return whether the run was at its end already."""
        if self.leader:
            self.guard()
            sweep(self.folder)
        self.model.train()
        restored = self.state.restore(self.trained, self.optimizer, self._check_belongings)
        if restored:
            self.progress, saved = restored
            self.window = Window(list(saved))
        step = self.progress.step
        # also a barrier: the history is rewound when all have read it
        if not devices.are_equal(step, self.device):
            raise UserError(f"{self.folder}: processes read different states; start the run again")
        if self.leader:
            self.guard()
            self.state.drop_after(step)
            self.history.rewind(step)
            if restored:
                print(f"{self.run.id}: going on from step {step}", flush=True)
        return bool(restored) and self._do_what_is_due(step, validate)

    def _check_belongings(self, progress: Progress) -> None:
        """Raise UserError for a state whose history or best checkpoint has changed since it was saved."""
        if self.history.digest(progress.step) != progress.history_digest:
            raise UserError(f"{self.history.path} has other lines than were written")
        self._check_best(progress)

    def _check_best(self, progress: Progress) -> None:
        best = self._name_best(progress.best_step)
        if progress.best_step and digest(hash_tree(best)) != progress.best_digest:
            raise UserError(f"{best} has other bytes than were written; start the run again")

    def _name_best(self, step: int) -> Path:
        return self.folder / f"best-{step}"

    def _make_bar(self) -> Any:
        from tqdm import tqdm

        # a log file gets a line every 10 s, a terminal a live bar
        every = 0.5 if sys.stderr.isatty() else 10.0
        return tqdm(
            total=self.settings.steps, initial=self.progress.step, desc=self.run.id, unit="step",
            mininterval=every, disable=not self.leader,
        )  # fmt: skip

    def take_step(self, step: int) -> torch.Tensor:
        """Take one optimiser step; return the loss, its terms and the gradient norm, as one vector."""
        rows = self.order.batch(step)
        batches = {task.name: self.collator.batch(task, rows) for task in self.method.tasks}
        whole = Whole(len(rows), {name: batch.tokens for name, batch in batches.items()})
        self.optimizer.zero_grad()
        self.leaving.ask(stopping.get_signal() is not None)
        sums: torch.Tensor | None = None
        for start, stop in self._cut_into_micro_batches(len(rows)):
            part = {name: batch.take(range(start, stop)) for name, batch in batches.items()}
            seed = derive("dropout", **self.run.repetition, step=step, start=start)
            terms = self.learner.add_gradients(part, self.method, seed, whole)
            self.progress.names = list(terms)
            values = torch.stack(list(terms.values()))
            sums = values if sums is None else sums + values
        return self._update(step, sums)

    def _cut_into_micro_batches(self, size: int) -> list[tuple[int, int]]:
        """Return this process's parts of a batch of `size`: contiguous rows, as even as they can be."""
        count = devices.get_world_size() * self.settings.accumulation
        cuts = [size * number // count for number in range(count + 1)]
        first = devices.rank() * self.settings.accumulation
        own = range(first, first + self.settings.accumulation)
        return [(cuts[i], cuts[i + 1]) for i in own if cuts[i] < cuts[i + 1]]

    def _update(self, step: int, sums: torch.Tensor | None) -> torch.Tensor:
        if sums is None:  # a last batch with fewer examples than processes: this one had none
            self.progress.names = self.progress.names or self._find_term_names()
            sums = torch.zeros(len(self.progress.names), device=self.device)
        for parameter in self.parameters + self.own_parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [p.grad for p in self.parameters + self.own_parameters if p.grad is not None]
        devices.sum_over_processes([sums, *self.leaving.message, *grads])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        if self.own_parameters:  # apart, or a critic's gradient would scale the student's
            torch.nn.utils.clip_grad_norm_(self.own_parameters, self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._scale_rate(step)
        self.optimizer.step()
        return torch.cat([sums, norm.detach().reshape(1)])

    def _find_term_names(self) -> list[str]:
        batches: dict[str, Batch] = {t.name: self.collator.batch(t, [0]) for t in self.method.tasks}
        names = list(self.learner.add_gradients(batches, self.method, seed=0))
        self.optimizer.zero_grad()
        return names

    def _scale_rate(self, step: int) -> float:
        """Return the learning rate of step `step` (from 1) as a part of its peak: linear up, linear to 0."""
        done, warmup = step - 1, self.settings.warmup_steps
        if done < warmup:
            return (done + 1) / (warmup + 1)
        return (self.settings.steps - done) / max(self.settings.steps - warmup, 1)

    def _settle(self, step: int, validate: Validate) -> bool:
        """Do what follows an optimiser step; return whether it was the last one.

        Saves and raises Preempted if asked to stop; else saves, logs and validates where these are due.
        """
        leaving = self.leaving.reached()
        if self.leader:
            self.tell(step=step, seconds=round(self.progress.seconds, 1), device=self.device.type)
            if leaving or self._save_is_due(step):
                self._save()
        if leaving:
            raise stopping.Preempted(self._describe_stop())
        return self._do_what_is_due(step, validate)

    def _save_is_due(self, step: int) -> bool:
        if step == self.settings.steps:
            return False
        minutes = self.settings.checkpoint_minutes
        late = minutes is not None and time.monotonic() - self.saved_at > 60 * minutes
        return late or step % self.settings.checkpoint_every == 0

    def _describe_stop(self) -> str:
        by = stopping.get_signal()
        name = by.name if by else "a signal to another process"
        return f"{self.run.id}: stopped by {name}, saved at step {self.progress.step}"

    def _save(self) -> None:
        self._check_finite(self.progress.step)
        self.guard()
        self.progress.history_digest = self.history.digest(self.progress.step)
        self.state.save(self.progress, self.trained, self.optimizer, self.window.stack())
        self.guard()
        needed = {progress.best_step for progress in [*self.state.read_progresses(), self.progress]}
        for path in self.folder.glob("best-*"):
            if int(path.name.split("-")[1]) not in needed:
                shutil.rmtree(path)
        self.saved_at = time.monotonic()

    def _do_what_is_due(self, step: int, validate: Validate) -> bool:
        """Log and validate where they are due; return whether the run is done."""
        last = step == self.settings.steps
        log = last or step % self.settings.log_every == 0
        check = last or step % self.settings.eval_every == 0
        if log or check:
            self._check_finite(step)
        if log:
            self._log(step)
        stop = check and self._validate(step, validate)
        if log:
            # not before validation, which may be cut short: the step is then saved with its window
            self.window = Window()
        return stop or last

    def _log(self, step: int) -> None:
        *means, norm = self.window.average(self.device)
        losses = {f"loss/{name}": value for name, value in zip(self.progress.names, means, strict=True)}
        if self.leader:
            self.guard()
            self.history.write({
                "step": step, "epoch": round(self.order.epoch(step), 4), **losses,
                "learning_rate": self.settings.learning_rate * self._scale_rate(step), "gradient_norm": norm,
                "examples_per_second": round(step * self.settings.batch_size / self.progress.seconds, 2),
            })  # fmt: skip

    def _check_finite(self, step: int) -> None:
        """Refuse to continue or save after a loss that is not finite. Raises UserError with step and term."""
        fault = self.window.find_fault(self.progress.names, step, self.device)
        if fault:
            raise UserError(f"{self.run.id}: {fault}; try a lower learning rate")

    def _validate(self, step: int, validate: Validate) -> bool:
        """Validate, and keep the model if it is the best so far; return whether to stop early.

        Where validation is cut short by a request to stop, the step is saved as not yet validated.
        """
        said = torch.zeros(2, dtype=torch.float64)  # accuracy, and whether validation was cut short
        if self.leader:
            try:
                found = validate(self.model)
            except stopping.Preempted:
                said[1] = 1
                self._save()
            else:
                said[0] = float(found["valid/accuracy"] or 0.0)
                self.guard()
                self.history.write({"step": step, "epoch": round(self.order.epoch(step), 4), **found})
            self.model.train()
        said = said.to(self.device)
        devices.sum_over_processes([said])
        if said[1]:
            raise stopping.Preempted(self._describe_stop())
        self._keep_if_best(step, float(said[0]))
        return self.settings.patience is not None and self.progress.since_best >= self.settings.patience

    def _keep_if_best(self, step: int, accuracy: float) -> None:
        if accuracy <= self.progress.best_accuracy:
            self.progress.since_best += 1
            return
        self.progress.best_accuracy, self.progress.best_step, self.progress.since_best = accuracy, step, 0
        if self.leader:
            self.guard()
            students.save(self.model, self.collator.tokenizer, self._name_best(step))
            self.progress.best_digest = digest(hash_tree(self._name_best(step)))

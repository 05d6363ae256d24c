"""Train one run: read the prepared data, optimise, validate, keep the best and the last checkpoint.

Nothing here knows Snakemake or MLflow, or needs a network. What is left in the run folder:
`config.json`, `history.jsonl`, `environment.json`, `model/` (best on validation), `model_last/` and
`training.json`, which is written last and marks the run as trained (see `training.outputs`).
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cotdistill import methods, students
from cotdistill.common import stopping
from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, link, sweep, tree_sha256
from cotdistill.common.fingerprint import fingerprint
from cotdistill.common.seeds import derive
from cotdistill.data.batches import Collator, Order
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import subset
from cotdistill.evaluation.information.measure import Meter, measurable
from cotdistill.evaluation.scores import score
from cotdistill.inference.generate import Generator
from cotdistill.jobs import environment
from cotdistill.jobs.answer import answer_with
from cotdistill.runs import outputs
from cotdistill.runs.documents import Environment, RunConfig, Training
from cotdistill.runs.folder import LAST, STRICT
from cotdistill.runs.grid import Run
from cotdistill.runs.history import History
from cotdistill.runs.lease import Lease
from cotdistill.runs.state import Progress, State
from cotdistill.students.packed.step import Step
from cotdistill.training import devices

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


def train(run: Run) -> None:
    """Train `run` to the end, from its last saved state if it has one; nothing if it is trained already.

    Another process that trains the same run is waited for, and its result used. Raises UserError for
    outputs or state of another config, a missing GPU, bad data or a NaN loss; Preempted, with the state
    saved, when a signal asked to stop (see `jobs.stopping`).
    """
    kind = devices.choose(run.training.device)
    devices.deterministic(run.student.compute.threads)
    devices.reuse_memory()
    leader = devices.rank() == 0
    with contextlib.ExitStack() as stack:
        lease = Lease(run.files.states, until=lambda: outputs.trained(run))
        if leader:
            stack.enter_context(lease)
        done = leader and (not lease.held or outputs.trained(run) or outputs.restore(run, origin_of(run)))
        device = stack.enter_context(devices.held(kind))
        stack.enter_context(devices.process_group(device))
        if not devices.together(done, device):
            Trainer(run, device, lease).fit()
        elif leader:
            print(f"{run.id}: already trained, nothing to do")


def origin_of(run: Run) -> str:
    """Digest of what a run's numbers depend on beside its config: the code of training, and the data."""
    code = fingerprint("training.trainer", f"methods.{run.method.method}")
    return digest([code, Prepared(run.prepared).digest])


class Trainer:
    """One run in training: everything it holds, and the loop over steps."""

    def __init__(self, run: Run, device: torch.device, lease: Lease | None = None) -> None:
        self.run, self.device, self.settings = run, device, run.training
        self.lease = lease or Lease(run.files.states)
        self.started = datetime.datetime.now(datetime.UTC)
        self.leader = devices.rank() == 0
        prepared = Prepared(run.prepared)
        self.manifest = prepared.manifest
        self.method = methods.build(run.method.method, run.method.settings)
        self.collator = Collator(
            prepared, "train", run.labels, self.settings.max_input_tokens, self.settings.max_target_tokens
        )
        rows = subset(self.manifest["sizes"]["train"], run.fraction, run.seed, run.dataset.name)
        self.order = Order(rows, self.settings.batch_size, run.dataset.name, run.seed)
        self.model: T5ForConditionalGeneration = students.load(run, self.manifest["vocabulary"]).to(device)
        self.trained = self._with_own_modules()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        learned = self.method.learned
        self.own_parameters = list(learned.parameters()) if learned is not None else []
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        self.optimizer = torch.optim.AdamW(
            self.parameters + self.own_parameters, lr=rate, weight_decay=decay, fused=True
        )
        self.step = Step(self.model, self.method, self.settings.precision)
        self.generator = Generator(run, prepared, self.method, device)
        self.meter = self._meter(prepared) if self.leader and measurable(run, self.method) else None
        self.folder = run.state
        self.origin = origin_of(run)
        self.state = State(self.folder, run.hash, self.origin)
        self.history = History(self.folder / "history.jsonl")
        self.progress = Progress()
        self.window: list[torch.Tensor] = []
        self.saved_at = time.monotonic()
        self.leaving = devices.Agreement(device)

    def _with_own_modules(self) -> torch.nn.Module:
        """All that is trained, and saved in a state: the student, and what the method learns beside it."""
        axes = {"dataset": self.run.dataset.name, "student": self.run.student.name, "seed": self.run.seed}
        self.method.equip(self.model.config.d_model, derive("method's modules", **axes))
        if self.method.learned is None:
            return self.model
        return torch.nn.ModuleDict({"student": self.model, "method": self.method.learned.to(self.device)})

    def _meter(self, prepared: Prepared) -> Meter:
        most = self.run.experiment.evaluation.mutual_information
        return Meter(self.run, prepared, self.method, "valid", most, self.device)

    def fit(self) -> None:
        """The whole run: restore, step until done, write the outputs, answer test while warm."""
        done = self._restore()
        clock = time.perf_counter() - self.progress.seconds
        with self._bar() as bar:
            while not done:
                self.progress.step += 1
                self.window.append(self._step(self.progress.step))
                self.progress.seconds = time.perf_counter() - clock
                bar.update()
                done = self._settle(self.progress.step)
        if self.leader:
            self._finish()
            try:
                answer_with(self.run, self.generator)
            except stopping.Preempted as stopped:
                print(f"{self.run.id}: trained; answering test {stopped}, evaluation will go on with it")

    def _restore(self) -> bool:
        """Go back to the newest sound state. Returns whether the run was at its end already."""
        if self.leader:
            self.lease.check()
            sweep(self.folder)
        self.model.train()
        restored = self.state.restore(self.trained, self.optimizer, self._check_belongings)
        if restored:
            self.progress, window = restored
            self.window = list(window)
        step = self.progress.step
        # also a barrier: the history is rewound when all have read it
        if not devices.equal(step, self.device):
            raise UserError(f"{self.folder}: processes read different states; start the run again")
        if self.leader:
            self.lease.check()
            self.state.drop_after(step)
            self.history.rewind(step)
            if restored:
                print(f"{self.run.id}: going on from step {step}", flush=True)
        return bool(restored) and self._after_step(step)

    def _check_belongings(self, progress: Progress) -> None:
        """Refuse a state whose history or best checkpoint is not what it was. Raises UserError."""
        if self.history.digest(progress.step) != progress.history_digest:
            raise UserError(f"{self.history.path} has other lines than were written")
        self._check_best(progress)

    def _check_best(self, progress: Progress) -> None:
        best = self._best(progress.best_step)
        if progress.best_step and digest(tree_sha256(best)) != progress.best_digest:
            raise UserError(f"{best} has other bytes than were written; start the run again")

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step}"

    def _bar(self) -> Any:
        import sys

        from tqdm import tqdm

        # a log file gets a line every 10 s, a terminal a live bar
        every = 0.5 if sys.stderr.isatty() else 10.0
        return tqdm(
            total=self.settings.steps, initial=self.progress.step, desc=self.run.id, unit="step",
            mininterval=every, disable=not self.leader,
        )

    def _step(self, step: int) -> torch.Tensor:
        """One optimiser step. Returns the loss, its terms and the gradient norm, as one vector."""
        rows = self.order.batch(step)
        whole = {task.name: self.collator.batch(task, rows) for task in self.method.tasks}
        tokens = {name: batch.tokens for name, batch in whole.items()}
        self.optimizer.zero_grad()
        self.leaving.ask(stopping.asked() is not None)
        sums: torch.Tensor | None = None
        for start, stop in self._pieces(len(rows)):
            piece = {name: batch.rows(start, stop) for name, batch in whole.items()}
            seed = derive(
                "dropout", dataset=self.run.dataset.name, student=self.run.student.name, seed=self.run.seed,
                step=step, start=start,
            )
            parts = self.step.gradients(piece, seed, tokens, len(rows))
            self.progress.names = list(parts)
            values = torch.stack(list(parts.values()))
            sums = values if sums is None else sums + values
        return self._update(step, sums)

    def _pieces(self, size: int) -> list[tuple[int, int]]:
        """This process's micro-batches of a batch of `size`: contiguous rows, as even as they can be."""
        count = devices.world_size() * self.settings.accumulation
        cuts = [size * number // count for number in range(count + 1)]
        first = devices.rank() * self.settings.accumulation
        own = range(first, first + self.settings.accumulation)
        return [(cuts[i], cuts[i + 1]) for i in own if cuts[i] < cuts[i + 1]]

    def _update(self, step: int, sums: torch.Tensor | None) -> torch.Tensor:
        if sums is None:  # a last batch with fewer examples than processes: this one had none
            self.progress.names = self.progress.names or self._term_names()
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
            group["lr"] = self.settings.learning_rate * self._rate(step)
        self.optimizer.step()
        return torch.cat([sums, norm.detach().reshape(1)])

    def _term_names(self) -> list[str]:
        batch = {task.name: self.collator.batch(task, [0]) for task in self.method.tasks}
        names = list(self.step.gradients(batch, seed=0))
        self.optimizer.zero_grad()
        return names

    def _rate(self, step: int) -> float:
        """The learning rate of step `step` (from 1), as a part of its peak: linear up, linear to 0."""
        done, warmup = step - 1, self.settings.warmup_steps
        if done < warmup:
            return (done + 1) / (warmup + 1)
        return (self.settings.steps - done) / max(self.settings.steps - warmup, 1)

    def _settle(self, step: int) -> bool:
        """After an optimiser step: save and stop if asked, do what is due. Returns whether it was last."""
        leaving = self.leaving.reached()
        if self.leader:
            self.lease.tell(step=step, seconds=round(self.progress.seconds, 1), device=self.device.type)
            if leaving or self._save_is_due(step):
                self._save()
        if leaving:
            raise stopping.Preempted(self._parting())
        return self._after_step(step)

    def _save_is_due(self, step: int) -> bool:
        if step == self.settings.steps:
            return False
        minutes = self.settings.checkpoint_minutes
        late = minutes is not None and time.monotonic() - self.saved_at > 60 * minutes
        return late or step % self.settings.checkpoint_every == 0

    def _parting(self) -> str:
        by = stopping.asked()
        name = by.name if by else "a signal to another process"
        return f"{self.run.id}: stopped by {name}, saved at step {self.progress.step}"

    def _save(self) -> None:
        self._check_finite(self.progress.step)
        self.lease.check()
        self.progress.history_digest = self.history.digest(self.progress.step)
        window = torch.stack(self.window).cpu() if self.window else torch.zeros(0)
        self.state.save(self.progress, self.trained, self.optimizer, window)
        self.lease.check()
        needed = {progress.best_step for progress in [*self.state.progresses(), self.progress]}
        for path in self.folder.glob("best-*"):
            if int(path.name.split("-")[1]) not in needed:
                shutil.rmtree(path)
        self.saved_at = time.monotonic()

    def _after_step(self, step: int) -> bool:
        """Log and validate where they are due. Returns whether the run is done."""
        last = step == self.settings.steps
        log, validate = (
            step % every == 0 or last for every in (self.settings.log_every, self.settings.eval_every)
        )
        if log or validate:
            self._check_finite(step)
        if log:
            self._log(step)
        stop = validate and self._validate(step)
        if log:
            self.window = []  # not before: validation may be cut short, and then the step is saved whole
        return stop or last

    def _log(self, step: int) -> None:
        means = torch.stack([values.to(self.device) for values in self.window]).mean(0).tolist()
        losses = {f"loss/{name}": value for name, value in zip(self.progress.names, means, strict=False)}
        if self.leader:
            self.lease.check()
            self.history.write({
                "step": step, "epoch": round(self.order.epoch(step), 4), **losses,
                "learning_rate": self.settings.learning_rate * self._rate(step), "gradient_norm": means[-1],
                "examples_per_second": round(step * self.settings.batch_size / self.progress.seconds, 2),
            })

    def _check_finite(self, step: int) -> None:
        """Refuse to go on, or to save, after a loss that is not a number: names the step and the term."""
        if not self.window:
            return
        values = torch.stack([value.to(self.device) for value in self.window])
        if bool(values.isfinite().all()):
            return
        row = int((~values.isfinite().all(1)).nonzero()[0])
        columns = [*(f"loss term '{name}'" for name in self.progress.names), "gradient norm"]
        bad = [name for name, value in zip(columns, values[row].tolist(), strict=True) if value - value != 0]
        first = next((name for name in bad if name != "loss term 'total'"), bad[0])
        raise UserError(
            f"{self.run.id}: {first} is not finite at step {step - len(self.window) + 1 + row} "
            f"(value {values[row][columns.index(first)].item()}); try a lower learning rate"
        )

    def _validate(self, step: int) -> bool:
        """Accuracy on the validation split; keeps the model if it is the best so far.

        Returns whether to stop early. Asked to stop meanwhile, it saves the step as not yet validated.
        """
        verdict = torch.zeros(2, dtype=torch.float64)
        if self.leader:
            try:
                result = score(self.generator.answers(self.model, "valid"))
                information = self.meter.line(self.model) if self.meter else {}
            except stopping.Preempted:
                verdict[1] = 1
                self._save()
            else:
                verdict[0] = result["accuracy"]
                self.lease.check()
                self.history.write({
                    "step": step, "epoch": round(self.order.epoch(step), 4),
                    "valid/accuracy": result["accuracy"], "valid/n": result["n"], **information,
                })
            self.model.train()
        verdict = verdict.to(self.device)
        devices.sum_over_processes([verdict])
        if verdict[1]:
            raise stopping.Preempted(self._parting())
        self._keep_if_best(step, float(verdict[0]))
        return self.settings.patience is not None and self.progress.since_best >= self.settings.patience

    def _keep_if_best(self, step: int, accuracy: float) -> None:
        if accuracy <= self.progress.best_accuracy:
            self.progress.since_best += 1
            return
        self.progress.best_accuracy, self.progress.best_step, self.progress.since_best = accuracy, step, 0
        if self.leader:
            self.lease.check()
            students.save(self.model, self.collator.tokenizer, self._best(step))
            self.progress.best_digest = digest(tree_sha256(self._best(step)))

    def _finish(self) -> None:
        """Write the outputs where a retry cannot delete them, put them in their places, drop the states."""
        self.lease.check()
        progress = self.progress
        self._check_best(progress)
        about = {"run": self.run.id, "hash": self.run.hash}
        with outputs.writing(self.run) as files:
            students.save(self.model, self.collator.tokenizer, files.checkpoint(LAST))
            link(self._best(progress.best_step), files.checkpoint(STRICT))
            link(self.history.path, files.history)
            RunConfig(**about, config=self.run.config).write(files.config)
            Environment(**about, **self._environment()).write(files.environment)
            Training(
                **about, origin=self.origin, steps=progress.step, best_step=progress.best_step,
                best_valid_accuracy=progress.best_accuracy, files=tree_sha256(files.folder),
            ).write(files.training)
        outputs.restore(self.run, self.origin)
        for path in [*self.folder.glob("step-*"), *self.folder.glob("best-*")]:
            shutil.rmtree(path)

    def _environment(self) -> dict[str, Any]:
        described = environment.describe(self.device.type, self.settings.gpus, torch.get_num_threads())
        return {
            **described,
            "engine": "packed",
            "student": {},
            "data_checksum": self.manifest["checksum"],
            "wall_s": round(self.progress.seconds, 3),
            "peak_memory_mb": round(environment.peak_memory_mb(self.device.type), 1),
            "started_at": self.started.isoformat(timespec="seconds"),
            "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

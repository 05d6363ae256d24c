"""Train one run: read the prepared data, optimise, validate, keep the best and the last checkpoint.

Nothing here knows Snakemake or MLflow, or needs a network. What is left in the run folder:
`config.json`, `history.jsonl`, `environment.json`, `model/` (best on validation), `model_last/` and
`training.json`, which is written last and marks the run as trained.
"""

from __future__ import annotations

import datetime
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cotdistill import methods, students
from cotdistill.config.grid import Run, state_folder
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import subset
from cotdistill.errors import UserError
from cotdistill.evaluation.answering import answer_with
from cotdistill.evaluation.generate import Generator
from cotdistill.evaluation.scores import score
from cotdistill.files import atomic, read_json, write_json
from cotdistill.seeds import derive
from cotdistill.training import devices, environment, objective
from cotdistill.training.batches import Collator, Order
from cotdistill.training.history import History
from cotdistill.training.state import Progress, State

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


def train(run: Run) -> None:
    """Train `run` to the end, from its last saved state if it has one; nothing if it is trained already.

    Raises UserError for outputs or state of another config, a missing GPU, bad data or a NaN loss.
    """
    if _trained_already(run):
        if devices.rank() == 0:
            print(f"{run.id}: already trained, nothing to do")
        return
    kind = devices.choose(run.training.device)
    devices.deterministic(run.student.compute.threads)
    with devices.held(kind) as device, devices.process_group(device):
        Trainer(run, device).fit()


def _trained_already(run: Run) -> bool:
    marker = run.folder / "training.json"
    if not marker.is_file():
        return False
    found = read_json(marker)["hash"]
    if found != run.hash:
        raise UserError(
            f"{run.folder} holds a run of another config (hash {found}, expected {run.hash}); "
            "remove the folder to train again"
        )
    return (run.folder / "model").is_dir() and (run.folder / "model_last").is_dir()


class Trainer:
    """One run in training: everything it holds, and the loop over steps."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.device, self.settings = run, device, run.training
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
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=decay, fused=True)
        self.generator = Generator(run, prepared, self.method, device)
        self.folder = state_folder(run)
        self.state = State(self.folder, run.hash)
        self.history = History(self.folder / "history.jsonl")
        self.progress = Progress()
        self.window: list[torch.Tensor] = []
        self.names: list[str] = []

    def fit(self) -> None:
        """The whole run: restore, step until done, write the outputs."""
        self._restore()
        clock = time.perf_counter() - self.progress.seconds
        with self._bar() as bar:
            while self.progress.step < self.settings.steps:
                self.progress.step += 1
                self.window.append(self._step(self.progress.step))
                self.progress.seconds = time.perf_counter() - clock
                bar.update()
                if self._after_step(self.progress.step):
                    break
        if self.leader:
            self._finish()

    def _restore(self) -> None:
        self.model.train()
        restored = self.state.restore(self.model, self.optimizer)
        if restored:
            self.progress, window = restored
            self.window = list(window)
            if self.leader:
                print(f"{self.run.id}: going on from step {self.progress.step}", flush=True)
        if self.leader:
            write_json(self.run.folder / "config.json", _config(self.run))
            self.history.rewind(self.progress.step)

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
        torch.manual_seed(derive(
            "dropout", dataset=self.run.dataset.name, student=self.run.student.name, seed=self.run.seed,
            step=step, rank=devices.rank(),
        ))
        self.optimizer.zero_grad(set_to_none=False)
        sums: torch.Tensor | None = None
        for start, stop in self._pieces(len(rows)):
            piece = {name: batch.rows(start, stop).to(self.device) for name, batch in whole.items()}
            share = (stop - start) / len(rows)
            parts = objective.terms(self.model, self.method, piece, tokens, share, self.settings.precision)
            loss = objective.total(parts)
            loss.backward()
            self.names = ["total", *parts]
            values = torch.stack([loss.detach(), *(term.value.detach() for term in parts.values())])
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
            self.names = self.names or ["total", *self._term_names()]
            sums = torch.zeros(len(self.names), device=self.device)
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        devices.sum_over_processes([sums, *(p.grad for p in self.parameters if p.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._rate(step)
        self.optimizer.step()
        return torch.cat([sums, norm.detach().reshape(1)])

    def _term_names(self) -> list[str]:
        batch = {task.name: self.collator.batch(task, [0]).to(self.device) for task in self.method.tasks}
        with torch.no_grad():
            return list(objective.terms(self.model, self.method, batch, dict.fromkeys(batch, 1), 1.0))

    def _rate(self, step: int) -> float:
        """The learning rate of step `step` (from 1), as a part of its peak: linear up, linear to 0."""
        done, warmup = step - 1, self.settings.warmup_steps
        if done < warmup:
            return (done + 1) / (warmup + 1)
        return (self.settings.steps - done) / max(self.settings.steps - warmup, 1)

    def _after_step(self, step: int) -> bool:
        """Log, validate and save where they are due. Returns whether to stop early."""
        last, stop = step == self.settings.steps, False
        if step % self.settings.log_every == 0 or last:
            self._log(step)
        if step % self.settings.eval_every == 0 or last:
            self._check_finite(step)
            stop = self._validate(step)
        if step % self.settings.checkpoint_every == 0 and not last and not stop:
            self._check_finite(step)
            if self.leader:
                window = torch.stack(self.window).cpu() if self.window else torch.zeros(0)
                self.state.save(self.progress, self.model, self.optimizer, window)
        return stop

    def _log(self, step: int) -> None:
        self._check_finite(step)
        means = torch.stack([values.to(self.device) for values in self.window]).mean(0).tolist()
        losses = {f"loss/{name}": value for name, value in zip(self.names, means, strict=False)}
        if self.leader:
            self.history.write({
                "step": step, "epoch": round(self.order.epoch(step), 4), **losses,
                "learning_rate": self.settings.learning_rate * self._rate(step), "gradient_norm": means[-1],
                "examples_per_second": round(step * self.settings.batch_size / self.progress.seconds, 2),
            })
        self.window = []

    def _check_finite(self, step: int) -> None:
        """Refuse to go on, or to save, after a loss that is not a number: names the step and the term."""
        if not self.window:
            return
        values = torch.stack([value.to(self.device) for value in self.window])
        if bool(values.isfinite().all()):
            return
        row = int((~values.isfinite().all(1)).nonzero()[0])
        columns = [*(f"loss term '{name}'" for name in self.names), "gradient norm"]
        bad = [name for name, value in zip(columns, values[row].tolist(), strict=True) if value - value != 0]
        first = next((name for name in bad if name != "loss term 'total'"), bad[0])
        raise UserError(
            f"{self.run.id}: {first} is not finite at step {step - len(self.window) + 1 + row} "
            f"(value {values[row][columns.index(first)].item()}); try a lower learning rate"
        )

    def _validate(self, step: int) -> bool:
        """Accuracy on the validation split; keeps the model if it is the best so far."""
        verdict = torch.zeros(1, dtype=torch.float64)
        if self.leader:
            result = score(self.generator.answers(self.model, "valid"))
            self.model.train()
            self.history.write({
                "step": step, "epoch": round(self.order.epoch(step), 4),
                "valid/accuracy": result["accuracy"], "valid/n": result["n"],
            })
            verdict[0] = result["accuracy"]
        verdict = verdict.to(self.device)
        devices.sum_over_processes([verdict])
        accuracy = float(verdict[0])
        if accuracy > self.progress.best_accuracy:
            self.progress.best_accuracy, self.progress.best_step, self.progress.since_best = accuracy, step, 0
            if self.leader:
                students.save(self.model, self.collator.tokenizer, self.folder / "best")
        else:
            self.progress.since_best += 1
        return self.settings.patience is not None and self.progress.since_best >= self.settings.patience

    def _finish(self) -> None:
        """Move everything to its place; `training.json` comes last and marks the run as trained."""
        folder, progress = self.run.folder, self.progress
        students.save(self.model, self.collator.tokenizer, folder / "model_last")
        _copy(self.folder / "best", folder / "model")
        _copy(self.folder / "history.jsonl", folder / "history.jsonl")
        described = environment.describe(self.device.type, self.settings.processes, torch.get_num_threads())
        write_json(folder / "environment.json", {
            **described,
            "data_checksum": self.manifest["checksum"],
            "wall_s": round(progress.seconds, 3),
            "peak_memory_mb": round(environment.peak_memory_mb(self.device.type), 1),
            "started_at": self.started.isoformat(timespec="seconds"),
            "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        })
        write_json(folder / "training.json", {
            "run": self.run.id, "hash": self.run.hash, "steps": progress.step,
            "best_step": progress.best_step, "best_valid_accuracy": progress.best_accuracy,
        })
        shutil.rmtree(self.folder.parent)
        answer_with(self.run, self.generator)


def _config(run: Run) -> dict[str, Any]:
    return {"run": run.id, "hash": run.hash, "config": run.config}


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as part:
        if source.is_dir():
            shutil.copytree(source, part)
        else:
            shutil.copyfile(source, part)

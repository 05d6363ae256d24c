"""The job that trains a run: hold its folder and a device, train, write the outputs, answer test.

Test is answered in the same process, which has loaded all that this needs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cotdistill import methods, students
from cotdistill.common import stopping
from cotdistill.common.files import hash_tree, link
from cotdistill.data.prepared import CHECKED, Prepared, check_joins
from cotdistill.evaluation.predictability.measure import Meter, is_measured
from cotdistill.evaluation.scores import score
from cotdistill.inference.generate import Generator
from cotdistill.jobs import environment
from cotdistill.jobs.answer import answer_with
from cotdistill.jobs.hardware import describe_hardware
from cotdistill.jobs.prepare import list_own_literals
from cotdistill.methods import Method
from cotdistill.runs import answers, limits, outputs
from cotdistill.runs.code import compute_origin
from cotdistill.runs.documents import RunConfig, Training
from cotdistill.runs.folder import LAST, STRICT
from cotdistill.runs.grid import Run
from cotdistill.runs.lease import Lease
from cotdistill.students import engines
from cotdistill.training import devices
from cotdistill.training.trainer import Trainer, Validate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def train(run: Run) -> None:
    """Train `run` to the end, from its last saved state if it has one, and answer test with it.

    Does nothing where that is done already. Another process that trains the same run is waited for, and its
    result used. Raises UserError for outputs or state of another config, a missing GPU, bad data or a NaN
    loss; Preempted, with what was done saved, when a signal asked to stop (see `common.stopping`).
    """
    devices.check_processes(run.training.gpus)
    kind = devices.choose(run.training.device)
    devices.make_deterministic(run.student.compute.threads)
    devices.reuse_memory()
    engine = engines.choose(run.training.engine, kind)
    leader = devices.rank() == 0
    origin = compute_origin(run, engine)
    with contextlib.ExitStack() as stack:
        lease = Lease(run.files.states, until=lambda: _is_done(run))
        if leader:
            stack.enter_context(lease)
        done = leader and (not lease.held or _is_done(run))
        written = done or (leader and (_is_usable(run) or outputs.restore(run, origin)))
        device = stack.enter_context(devices.hold_device(kind))
        stack.enter_context(devices.connect_processes(device))
        if devices.broadcast(done, device):
            if leader:
                print(f"{run.id}: already trained, nothing to do")
            return
        prepared, method = Prepared(run.prepared), methods.build(run.method.method, run.method.settings)
        limits.check_machine(run, kind, prepared.manifest["vocabulary"])
        _check_literals(prepared, method)
        generator = Generator(run, prepared, method, engine)
        if not devices.broadcast(written, device):
            # before there is a trainer: only one student is in memory at a time
            validate = make_validation(run, generator, method, engine, device)
            trainer = Trainer(run, device, engine, origin, guard=lease.check, tell=lease.tell)
            if leader:
                outputs.note_start(run, describe_hardware(kind, run.training.gpus))
            trainer.fit(validate)
            if leader:
                lease.check()
                _write_outputs(run, trainer, prepared, engine, origin)
            del trainer
        if leader:
            try:
                answer_with(run, generator, device)
            except stopping.Preempted as stopped:
                said = f"{run.id}: trained; answering test {stopped}, the finished batches are kept"
                raise stopping.Preempted(said) from stopped


def _is_done(run: Run) -> bool:
    """Whether the run is trained and has answered test; what evaluation needs is there."""
    return outputs.are_written(run) and answers.are_complete(run)


def _is_usable(run: Run) -> bool:
    """Whether the run is trained, and test can be answered with what is there."""
    return outputs.are_written(run) and not answers.list_lost(run, answers.are_current)


def _check_literals(prepared: Prepared, method: Method) -> None:
    """Refuse a method's own texts that the tokenizer joins with what follows them. Raises UserError.

    Preparing checks the same, but a method may be newer than the data.
    """
    if own := list_own_literals([method]):
        inputs = prepared.table("train").column("input")[:CHECKED].to_pylist()
        check_joins(inputs, prepared.tokenizer(), own)


def make_validation(
    run: Run, generator: Generator, method: Method, engine: str, device: torch.device
) -> Validate:
    """Return the function that validates a student: accuracy, and predictability of states if asked for.

    The untrained student, with which that is compared, is measured at once.
    """
    meter = None
    if devices.rank() == 0 and is_measured(run, method):
        meter = Meter(run, generator.prepared, method, "valid", engine)
        if meter.absence:
            meter = None
        else:
            meter.measure_untrained(device)

    def validate(model: PreTrainedModel) -> dict[str, float | None]:
        result = score(generator.answer(model, "valid"))
        predictability = meter.make_history_values(model) if meter else {}
        return {"valid/accuracy": result["accuracy"], "valid/n": result["n"], **predictability}

    return validate


def _write_outputs(run: Run, trainer: Trainer, prepared: Prepared, engine: str, origin: str) -> None:
    """Write the outputs where a retry cannot delete them, link them to their places, and drop the states."""
    progress = trainer.progress
    best = trainer.find_best_checkpoint()
    with outputs.open_for_writing(run) as files:
        students.save(trainer.model, trainer.collator.tokenizer, files.checkpoint(LAST))
        link(best, files.checkpoint(STRICT))
        link(trainer.history.path, files.history)
        RunConfig(run=run.id, hash=run.hash, engine=engine, config=run.config).write(files.config)
        environment.describe(
            run, trainer.device.type, engine, prepared.manifest,
            seconds=progress.seconds, started_at=outputs.read_start(run), machines=outputs.read_machines(run),
        ).write(files.environment)  # fmt: skip
        Training(
            run=run.id, hash=run.hash, origin=origin, steps=progress.step, best_step=progress.best_step,
            best_valid_accuracy=progress.best_accuracy, files=hash_tree(files.folder),
        ).write(files.training)  # fmt: skip
    outputs.restore(run, origin)
    trainer.drop_states()

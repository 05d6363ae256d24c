"""One step and what surrounds it: accumulation, clipping, the rate, precision, early stops, bad losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cotdistill import methods
from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json, read_jsonl
from cotdistill.jobs.train import train
from cotdistill.methods import Term
from cotdistill.runs.grid import Run
from cotdistill.training.trainer import Trainer

Read = Callable[..., Any]
STILL = {"dropout": 0}
CPU = torch.device("cpu")


def stepped(run: Run, steps: int = 1) -> tuple[Trainer, torch.Tensor]:
    """A trainer after some steps, and what the last step returned."""
    trainer = Trainer(run, CPU, "packed")
    trainer.model.train()
    for step in range(1, steps + 1):
        values = trainer.take_step(step)
    return trainer, values


def gradients(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.grad.reshape(-1) for parameter in trainer.parameters])


@pytest.mark.parametrize("method", ["finetune", "dss", "mi"])
@pytest.mark.parametrize("pieces", [2, 3, 8, 11])
def test_accumulation_gives_the_gradient_of_the_batch(tiny: Any, tmp_path: Path, method: str, pieces: int):
    # a clip norm so high that it never clips
    whole, expected = stepped(tiny.run(tmp_path, method, scratch=STILL, clip_norm=1e9))
    cut, found = stepped(tiny.run(tmp_path, method, scratch=STILL, clip_norm=1e9, accumulation=pieces))
    assert len(cut._cut_into_micro_batches(8)) == min(pieces, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(cut), gradients(whole), rtol=1e-4, atol=1e-6)


def test_accumulation_ends_at_the_same_weights(tiny: Any, tmp_path: Path, history: Read):
    ends, losses = [], []
    for pieces in (1, 2, 3):
        run = tiny.run(tmp_path / str(pieces), "mi", scratch=STILL, accumulation=pieces, learning_rate=1e-3)
        train(run)
        ends.append(load_file(run.folder / "model_last" / "model.safetensors"))
        losses.append([line["loss/total"] for line in history(run) if "loss/total" in line])
    for other in (1, 2):
        assert losses[other] == pytest.approx(losses[0], rel=1e-4)
        for name, value in ends[0].items():
            torch.testing.assert_close(ends[other][name], value, rtol=0, atol=1e-4)


def test_pieces_tile_a_batch_over_processes(tiny: Any, tmp_path: Path, monkeypatch: Any):
    trainer = Trainer(tiny.run(tmp_path, accumulation=2), CPU, "packed")
    monkeypatch.setenv("WORLD_SIZE", "3")
    for size in (1, 2, 5, 6, 7, 64):
        pieces = []
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            pieces += trainer._cut_into_micro_batches(size)
        assert [row for start, stop in pieces for row in range(start, stop)] == list(range(size))
        assert all(1 <= stop - start <= -(-size // 6) for start, stop in pieces)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (10, 4), (1, 0), (5, 5)])
def test_the_rate_rises_linearly_to_its_peak_and_falls_linearly(
    tiny: Any, tmp_path: Path, steps: int, warmup: int
):
    trainer = Trainer(tiny.run(tmp_path, steps=steps, warmup_steps=warmup), CPU, "packed")
    rates = [trainer._scale_rate(step) for step in range(1, steps + 1)]
    for step, rate in enumerate(rates):  # counted from 0, as both published codes' scheduler does
        if step < warmup:
            assert rate == pytest.approx((step + 1) / (warmup + 1))
        else:
            assert rate == pytest.approx((steps - step) / (steps - warmup))
    assert all(0 < rate <= 1 for rate in rates)
    if warmup < steps:
        assert rates[warmup] == 1


def test_the_logged_rate_is_the_one_that_was_used(tiny: Any, tmp_path: Path, history: Read):
    used = []
    run = tiny.run(tmp_path, "finetune", warmup_steps=4, log_every=1)
    with pytest.MonkeyPatch.context() as patch:
        original = torch.optim.AdamW.step

        def step(self: Any, *arguments: Any, **more: Any) -> Any:
            used.append(self.param_groups[0]["lr"])
            return original(self, *arguments, **more)

        patch.setattr(torch.optim.AdamW, "step", step)
        train(run)
    logged = [line["learning_rate"] for line in history(run) if "learning_rate" in line]
    assert logged == used and len(used) == 12
    assert max(used) == used[4] == 0.01 and used[-1] == pytest.approx(0.01 / 8)


def test_gradients_are_clipped_to_the_norm_and_the_full_norm_is_logged(tiny: Any, tmp_path: Path):
    free, values = stepped(tiny.run(tmp_path, scratch=STILL, clip_norm=1e9))
    norm = values[-1].item()
    assert gradients(free).norm().item() == pytest.approx(norm, rel=1e-5)
    low = norm / 10
    clipped, values = stepped(tiny.run(tmp_path, scratch=STILL, clip_norm=low))
    assert values[-1].item() == pytest.approx(norm, rel=1e-5)
    assert gradients(clipped).norm().item() == pytest.approx(low, rel=1e-3)
    torch.testing.assert_close(gradients(clipped) / low, gradients(free) / norm, rtol=1e-3, atol=1e-5)


def test_a_step_is_that_of_adamw(tiny: Any, tmp_path: Path):
    """Against the update written out (Loshchilov and Hutter 2019), with weight decay."""
    run = tiny.run(tmp_path, "finetune", scratch=STILL, weight_decay=0.1)
    before = [p.detach().clone() for p in Trainer(run, CPU, "packed").parameters]
    trainer, _ = stepped(run)
    for old, parameter in zip(before, trainer.parameters, strict=True):
        gradient = parameter.grad  # clipped; in step 1 both corrected moments are the gradient and its square
        expected = old * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


def test_dropout_is_drawn_anew_each_step_and_is_a_function_of_the_step(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, learning_rate=1e-30)
    trainer, first = stepped(run)
    again, same = stepped(run)
    rows = trainer.order.batch(1)
    trainer.order.batch = lambda step: rows  # the rows of step 1 under the dropout of step 2
    assert torch.equal(first, same) and (again.order.batch(1) == rows).all()
    assert trainer.take_step(2)[0] != pytest.approx(first[0].item(), rel=1e-6)


def test_the_log_averages_the_steps_since_the_last_line(tiny: Any, tmp_path: Path, history: Read):
    every, third = (tiny.run(tmp_path / str(n), "dss", log_every=n) for n in (1, 5))
    for run in (every, third):
        train(run)
    fine = [line for line in history(every) if "loss/total" in line]
    coarse = [line for line in history(third) if "loss/total" in line]
    assert [line["step"] for line in coarse] == [5, 10, 12]
    for key in ("loss/total", "loss/label", "loss/rationale", "gradient_norm"):
        values = [line[key] for line in fine]
        means = [sum(part) / len(part) for part in (values[:5], values[5:10], values[10:])]
        assert [line[key] for line in coarse] == pytest.approx(means, rel=1e-5)


def test_bf16_trains_and_keeps_its_weights_in_float32(
    tiny: Any, tmp_path: Path, trained: Callable[[str], Run], history: Read
):
    run = tiny.run(tmp_path, "mi", precision="bf16")
    train(run)
    tensors = load_file(run.folder / "model" / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    lines = history(run), history(trained("mi"))
    losses, exact = ([line["loss/total"] for line in each if "loss/total" in line] for each in lines)
    assert losses != exact and losses[0] == pytest.approx(exact[0], rel=0.05)


def test_early_stopping_ends_the_run(tiny: Any, tmp_path: Path, history: Read):
    run = tiny.run(tmp_path, "finetune", steps=40, eval_every=2, patience=2, learning_rate=1e-9)
    train(run)
    assert [line["step"] for line in history(run) if "valid/accuracy" in line] == [2, 4, 6]
    marker = read_json(run.folder / "training.json")
    assert (marker["steps"], marker["best_step"]) == (6, 2)
    assert (run.folder / "model").is_dir() and (run.folder / "model_last").is_dir()
    (state,) = (run.folder / "state").iterdir()
    assert sorted(path.name for path in state.iterdir()) == [
        "finished", "history.jsonl", "started.json",
    ], "no states"


def test_a_better_evaluation_renews_the_patience(tiny: Any, tmp_path: Path, monkeypatch: Any, history: Read):
    from cotdistill.jobs import train as job

    results = iter([0.1, 0.1, 0.2, 0.2, 0.1, 0.9])
    monkeypatch.setattr(job, "score", lambda answers: {"accuracy": next(results), "n": len(answers)})
    run = tiny.run(tmp_path, "finetune", steps=40, eval_every=1, patience=2)
    train(run)
    values = [line["valid/accuracy"] for line in history(run) if "valid/accuracy" in line]
    assert values == [0.1, 0.1, 0.2, 0.2, 0.1]
    assert read_json(run.folder / "training.json")["best_step"] == 3


def refused(run: Run) -> str:
    with pytest.raises(UserError) as caught:
        train(run)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(run.id)
    assert not (run.folder / "model").exists() and not (run.folder / "training.json").exists()
    return message


def test_a_diverging_run_names_its_step(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, learning_rate=1e30, log_every=3)
    message = refused(run)
    assert "is not finite at step 2 (value nan); try a lower learning rate" in message
    assert "loss term" in message or "gradient norm" in message


@pytest.mark.parametrize(
    ("bad", "value"), [("mutual_information", float("nan")), ("rationale", float("inf"))]
)
@pytest.mark.parametrize("every", [1, 5, 50])
def test_a_bad_term_is_named_also_between_logged_lines(
    tiny: Any, tmp_path: Path, monkeypatch: Any, bad: str, value: float, every: int
):
    original, calls = methods.METHODS.module("mi").METHOD.terms, []

    def terms(self: Any, outputs: Any) -> dict[str, Term]:
        calls.append(1)
        found = original(self, outputs)
        if len(calls) == 7:
            found[bad] = Term(found[bad].value * value, found[bad].weight)
        return found

    monkeypatch.setattr(methods.METHODS.module("mi").METHOD, "terms", terms)
    run = tiny.run(tmp_path, "mi", log_every=every, eval_every=100, checkpoint_every=10)
    assert f"loss term '{bad}' is not finite at step 7 (value {value})" in refused(run)
    lines = read_jsonl(run.folder / "state" / run.hash / "history.jsonl")
    assert all(line["step"] < 7 for line in lines)


def test_a_bad_gradient_is_named(tiny: Any, tmp_path: Path, monkeypatch: Any):
    original = torch.nn.utils.clip_grad_norm_

    def clip(parameters: Any, norm: float) -> torch.Tensor:
        return original(parameters, norm) * float("nan")

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    assert "gradient norm is not finite at step 1" in refused(tiny.run(tmp_path))


def test_no_state_is_saved_after_a_bad_loss(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, learning_rate=1e30, log_every=50, eval_every=50, checkpoint_every=1)
    refused(run)
    states = [path.name for path in (run.folder / "state" / run.hash).glob("step-*")]
    assert states == ["step-1"], "the loss of step 1 was good"

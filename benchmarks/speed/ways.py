"""The two ways to train a step, ours and the published, and what is read off the machine around them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import published
from benchmarks.speed.students import rows_of


def device() -> torch.device:
    """CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronised() -> float:
    """The clock in seconds, when the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Ours:
    """This package's trainer, driven a step at a time: the one place that knows how it is called."""

    def __init__(self, run: Any) -> None:
        from cotdistill.training import devices
        from cotdistill.training.trainer import Trainer

        devices.reuse_memory()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        self.trainer = Trainer(run, device())
        self.model = self.trainer.model
        self.model.train()

    def step(self, number: int) -> torch.Tensor:
        """Optimiser step `number` (from 1) with its data. Returns the loss, its terms, the gradient norm."""
        with deterministic():
            return self.trainer._step(number)

    def lengths(self, number: int) -> list[tuple[list[int], list[int]]]:
        """Tokens of each example's input and target in that step, for each task."""
        made = []
        for task in self.trainer.method.tasks:
            collator, rows = self.trainer.collator, self.trainer.order.batch(number)
            inputs = [len(collator.input_ids(task, row)) for row in rows]
            made.append((inputs, [len(collator.target_ids(task, row)) for row in rows]))
        return made


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Kernels as our training asks for them, and as torch's defaults are again for the published way."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def torch_products() -> Iterator[None]:
    """All products by torch's own functions, which are what its counters know."""
    from cotdistill.students.packed import products

    least, products.LEAST = products.LEAST, 2**62
    try:
        yield
    finally:
        products.LEAST = least


def full_steps(order: Any, batch: int, count: int) -> list[int]:
    """The first `count` steps whose batch is full; the last of an epoch is smaller."""
    numbers: list[int] = []
    step = 0
    while len(numbers) < count:
        step += 1
        if len(order.batch(step)) == batch:
            numbers.append(step)
    return numbers


def rows_of_steps(run: Any, prepared: Any, start: int, count: int) -> list[int]:
    """The examples that our way sees in its full steps from `start` on, end to end."""
    from cotdistill.data.batches import Order
    from cotdistill.data.splits import choose_subset

    batch, name = run.training.batch_size, run.dataset.name
    size = prepared.manifest["sizes"]["train"]
    order = Order(choose_subset(size, run.fraction, run.seed, name), batch, name, run.seed)
    return [int(row) for step in full_steps(order, batch, start + count)[start:] for row in order.batch(step)]


def published_trainer(
    run: Any, prepared: Any, folder: Path, rows: list[int], steps: int, log: bool = False,
    precision: str | None = None,
) -> published.OrderedTrainer:
    """The published way from the same weights, on the same texts, with the examples in this order."""
    from cotdistill.students import pretrained

    tokenizer, training = prepared.tokenizer(), run.training
    logging.getLogger("transformers").setLevel(logging.ERROR)  # untied weights are what we want
    model = pretrained.load(run.student.pretrained)
    data = published.tokenise(rows_of(prepared, "train"), tokenizer, run.method.name)
    return published.trainer(
        model, tokenizer, data, run.method.name, folder, batch=training.batch_size, steps=steps,
        precision=precision or training.precision, rows=rows, log=log, rate=training.learning_rate,
    )  # fmt: skip


class Steps:
    """Calls `after(k)` when the published trainer has done its k-th step (from 0); stops where that is False.

    The trainer's own loop runs as it is, its data loading included: time spent in `after` is ours.
    """

    def __new__(cls, after: Callable[[int], bool]) -> Any:
        from transformers import TrainerCallback

        class Callback(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                if not after(state.global_step - 1):
                    control.should_training_stop = True

        return Callback()


class Computed(TorchFunctionMode):
    """What a model computes while this is entered: positions of encoder and decoder, FLOPs of all products.

    Positions are those that the first feed-forward layer of each multiplies with its weights, whoever calls.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        stacks = {"encoder": model.encoder, "decoder": model.decoder}
        self._weights = {name: s.block[0].layer[-1].DenseReluDense.wi_0.weight for name, s in stacks.items()}
        self.positions = dict.fromkeys(stacks, 0)
        self._products = FlopCounterMode(display=False, custom_mapping=_in_place())

    def __enter__(self) -> Any:
        self._products.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._products.__exit__(*error)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.functional.linear:
            for name, weight in self._weights.items():
                if args[1] is weight:
                    self.positions[name] += args[0].numel() // args[0].shape[-1]
        return function(*args, **(kwargs or {}))

    @property
    def flops(self) -> int:
        """Of matrix products, forward and backward."""
        return int(self._products.get_total_flops())


def _in_place() -> dict[Any, Any]:
    """Products that are added to a tensor in place, of which torch's counter knows the other form only."""

    def product(into: Any, a: Any, b: Any, out_shape: Any = None, **options: Any) -> int:
        return 2 * math.prod(a) * b[-1]  # of shapes ([batch,] m, k) and ([batch,] k, n)

    return {torch.ops.aten.addmm_: product, torch.ops.aten.baddbmm_: product}


def matrix_rate(precision: str, size: int = 2048, seconds: float = 1.0) -> float:
    """FLOP/s of plain products of two square matrices: the most that a step could reach."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 8192 if torch.cuda.is_available() else size
    a = torch.randn(size, size, device=device()).to(kind)
    b = a.clone()
    torch.mm(a, b)
    began, count = synchronised(), 0
    while (spent := synchronised() - began) < seconds or count < 3:
        torch.mm(a, b)
        count += 1
    return 2 * size**3 * count / spent


def peak_memory() -> float:
    """The most memory so far in MB: of the GPU's tensors, or the resident set of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM in /proc/self/status: peak memory can be read on Linux only")

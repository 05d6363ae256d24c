"""The ways to train a step, ours with either engine and the published, and what is read off the machine."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
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

    def __init__(self, run: Any, engine: str) -> None:
        from cotdistill.data.prepared import Prepared
        from cotdistill.training import devices
        from cotdistill.training.trainer import Trainer

        devices.reuse_memory()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        self.run, self.engine, self.prepared = run, engine, Prepared(run.prepared)
        self.trainer = Trainer(run, device(), engine)
        self.model = self.trainer.model
        self.model.train()

    def step(self, number: int) -> torch.Tensor:
        """Take optimiser step `number` (from 1); return the loss, its terms and the gradient norm."""
        with deterministic():
            return self.trainer.take_step(number)


def make_generator(run: Any, prepared: Any, engine: str) -> Any:
    """Return what answers a split as evaluation does."""
    from cotdistill import methods
    from cotdistill.inference.generate import Generator

    return Generator(run, prepared, methods.build(run.method.method, run.method.settings), engine)


Lengths = list[tuple[list[int], list[int]]]
"""tokens of each example's input and target, for each task"""


class Measure:
    """Tells how long the training examples of a run are."""

    def __init__(self, run: Any, prepared: Any) -> None:
        from cotdistill import methods
        from cotdistill.data.batches import Collator

        training = run.training
        self.tasks = methods.build(run.method.method, run.method.settings).tasks
        self.collator = Collator(
            prepared, "train", run.labels, training.max_input_tokens, training.max_target_tokens
        )

    def lengths(self, rows: Sequence[int]) -> Lengths:
        """Return the tokens of these examples."""
        made = []
        for task in self.tasks:
            inputs = [len(self.collator.input_ids(task, row)) for row in rows]
            made.append((inputs, [len(self.collator.target_ids(task, row)) for row in rows]))
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


MEGABATCH = 50
"""batches whose examples transformers sorts by length when it groups by length"""


def grouped_by_length(run: Any, prepared: Any, count: int) -> list[list[int]]:
    """Batches as transformers' `group_by_length` makes them, some of a megabatch that stand for all of it.

    A megabatch is sorted by the length of the inputs and cut. Its first batches have the longest examples, so
    batches are picked all over it: the k-th at the k-th multiple of the golden ratio.
    """
    batch = run.training.batch_size
    rows = rows_of_steps(run, prepared, 0, MEGABATCH)
    (inputs, _), *_ = Measure(run, prepared).lengths(rows)
    order = sorted(range(len(rows)), key=lambda place: (-inputs[place], place))
    golden = (5**0.5 - 1) / 2
    numbers = [int((0.5 + k * golden) % 1 * MEGABATCH) for k in range(count)]
    return [[rows[place] for place in order[n * batch : (n + 1) * batch]] for n in numbers]


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

"""Where a run trains: the device, its lock, threads, and the processes that share a batch."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from cotdistill.common import stopping
from cotdistill.common.errors import UserError, describe_error
from cotdistill.common.text import parse_whole_number
from cotdistill.config import bounds


def choose(wanted: str) -> str:
    """Return 'cpu' or 'cuda' for a setting of auto, cpu or cuda. Raises UserError where there is no GPU."""
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise UserError("training.device is 'cuda' but no GPU is visible: expected one (or 'cpu', or 'auto')")
    return "cpu"


def list_gpus() -> list[str]:
    """Return the hardware ids of the GPUs that this process may use.

    Their numbers would not do: two jobs that each see one GPU call it 0, though it may be another.
    """
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def restrict_visible(numbers: list[int]) -> str:
    """Return the CUDA_VISIBLE_DEVICES with which a child process sees only these of this process's GPUs."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ",".join(seen.split(",")[number] if seen else str(number) for number in numbers)


@contextlib.contextmanager
def claim(
    count: int, names: list[str], folder: Path | None = None, wait: float = 0.5
) -> Iterator[list[int]]:
    """Hold `count` of this machine's GPUs for this process alone; yield their places in `names`.

    names: the GPUs' hardware ids. Snakemake counts local GPUs but assigns none, so two jobs would share GPU
    0. A file lock per GPU in `folder`, freed by the system when its holder dies, assigns them. A job takes
    all it needs or none, and tries again after about `wait` seconds: two jobs that each hold a part would
    wait for ever. Raises UserError for fewer GPUs than `count`.
    """
    import filelock

    if count > len(names):
        raise UserError(f"training.gpus is {count}, but {len(names)} GPUs are visible")
    folder = folder or Path(tempfile.gettempdir(), f"cotdistill-gpus-{os.getuid()}")
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.ExitStack() as stack:
            held: list[int] = []
            for number, name in enumerate(names):
                lock = filelock.FileLock(folder / f"gpu-{name}.lock", blocking=False)
                with contextlib.suppress(filelock.Timeout):
                    stack.enter_context(lock)
                    held.append(number)
                if len(held) == count:
                    yield held
                    return
        stopping.check()
        time.sleep(wait * random.uniform(0.5, 1.0))


@contextlib.contextmanager
def hold_device(kind: str) -> Iterator[torch.device]:
    """Hold a device for this process: the CPU, a claimed GPU, or the GPU of this process's local rank.

    kind: 'cpu' or 'cuda'.
    """
    if kind == "cpu":
        yield torch.device("cpu")
    elif get_world_size() > 1:
        yield torch.device("cuda", _read_number("LOCAL_RANK", 0, least=0, most=get_world_size() - 1))
    else:
        with claim(1, list_gpus()) as (number,):
            yield torch.device("cuda", number)


def make_deterministic(threads: int) -> None:
    """Set the number of threads, and deterministic kernels, so that two runs of one config are equal."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # the above also fills every new tensor, which costs a tenth of a small student's step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""names of glibc's `mallopt(3)`"""


def reuse_memory() -> None:
    """Make this process keep the memory that it frees, for its next tensors.

    On a CPU every large temporary would be mapped, faulted in and given back: a tenth of a small student's
    time on a virtual machine. Works on Linux with glibc; does nothing elsewhere.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        most = 2**31 - 1
        mallopt(TRIM_THRESHOLD, most)
        # older versions take no more than half of a thread's heap
        mallopt(MMAP_THRESHOLD, most) or mallopt(MMAP_THRESHOLD, 2**25)


def get_world_size() -> int:
    """Return the number of processes that share each batch (set by torchrun; 1 without it)."""
    return _read_number("WORLD_SIZE", 1, least=1, most=bounds.PROCESSES)


def rank() -> int:
    """Return this process's number among them, from 0."""
    return _read_number("RANK", 0, least=0, most=get_world_size() - 1)


def _read_number(name: str, default: int, least: int, most: int) -> int:
    """Return the number in an environment variable of torchrun's. Raises UserError for anything else."""
    text = os.environ.get(name, str(default))
    value = parse_whole_number(text)
    if value is not None and least <= value <= most:
        return value
    raise UserError(
        f"environment variable {name} is {text[:50]!r}; expected a whole number from {least} to {most}, as "
        "torchrun sets it: unset RANK, LOCAL_RANK and WORLD_SIZE"
    )


def check_processes(count: int) -> None:
    """Raise UserError where the environment tells of other processes than the `count` of this run."""
    rank()
    if get_world_size() != count:
        raise UserError(
            f"environment variable WORLD_SIZE is {get_world_size()}, but training.gpus is {count}; unset "
            "RANK, LOCAL_RANK and WORLD_SIZE: training starts its processes itself"
        )


@contextlib.contextmanager
def connect_processes(device: torch.device) -> Iterator[None]:
    """Connect the processes of a torchrun within the block; nothing for a single process."""
    if get_world_size() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # the others wait while the first process validates, which may take longer than the default allows
    try:
        torch.distributed.init_process_group(backend, timeout=datetime.timedelta(hours=6))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this run do not find each other ({describe_error(error)}); unset RANK, "
            "LOCAL_RANK and WORLD_SIZE: training starts its processes itself"
        ) from error
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def sum_over_processes(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one message."""
    if get_world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def broadcast(flag: bool, device: torch.device) -> bool:
    """Return the `flag` of the first process, in every process; those of the others are not used."""
    said = torch.tensor([float(flag and rank() == 0)], device=device)
    sum_over_processes([said])
    return bool(said)


def are_equal(value: int, device: torch.device) -> bool:
    """Whether all processes give the same `value`; waits for all."""
    said = torch.tensor([float(value), float(value) ** 2], dtype=torch.float64, device=device)
    sum_over_processes([said])
    return bool(said[1] * get_world_size() == said[0] ** 2)


class Agreement:
    """Whether any process was asked to stop, sent with each step's gradients: all stop at one step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.message: list[torch.Tensor] = []
        self._before: torch.Tensor | None = None
        self._alone = False

    def ask(self, wanted: bool) -> None:
        """Put this process's wish to stop into `message`, which is then to be summed over the processes."""
        self._alone = wanted
        if get_world_size() > 1:
            self._before = self.message[0] if self.message else None
            self.message = [torch.tensor([float(wanted)], device=self.device)]

    def reached(self) -> bool:
        """Whether to stop after this step.

        Several processes learn it one step late, so that none waits for its GPU.
        """
        if get_world_size() == 1:
            return self._alone
        return self._before is not None and bool(self._before > 0)

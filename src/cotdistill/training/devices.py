"""Where a run trains: the device, its lock, threads, and the processes that share a batch."""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from cotdistill.errors import UserError


def choose(wanted: str) -> str:
    """'cpu' or 'cuda' for a setting of auto, cpu or cuda. Raises UserError where there is no GPU."""
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise UserError("training.device is 'cuda' but no GPU is visible: expected one (or 'cpu', or 'auto')")
    return "cpu"


@contextlib.contextmanager
def claim(count: int, folder: Path | None = None, wait: float = 0.5) -> Iterator[int]:
    """Hold one of `count` local GPUs for this process alone; yields its number.

    Snakemake counts local GPUs but assigns none, so two jobs would share GPU 0. A file lock per GPU,
    freed by the system when its holder dies, hands them out one job each; further jobs wait.
    """
    import filelock

    folder = folder or Path(tempfile.gettempdir(), f"cotdistill-gpus-{os.getuid()}")
    folder.mkdir(parents=True, exist_ok=True)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace("/", "-") or "all"
    while True:
        for number in range(count):
            name = visible.split(",")[number] if visible != "all" else str(number)
            lock = filelock.FileLock(folder / f"gpu-{name}.lock", blocking=False)
            try:
                lock.acquire()
            except filelock.Timeout:
                continue
            try:
                yield number
            finally:
                lock.release()
            return
        time.sleep(wait)


@contextlib.contextmanager
def held(kind: str) -> Iterator[torch.device]:
    """The device of this process: the CPU, a claimed GPU, or the GPU of this process's local rank."""
    if kind == "cpu":
        yield torch.device("cpu")
    elif world_size() > 1:
        yield torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    else:
        with claim(torch.cuda.device_count()) as number:
            yield torch.device("cuda", number)


def deterministic(threads: int) -> None:
    """Fix what makes two runs of one config differ: thread counts and nondeterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # the above also fills every new tensor, which costs a tenth of a small student's step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def world_size() -> int:
    """Processes that share each batch (set by torchrun; 1 without it)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes of a torchrun; nothing for a single process."""
    if world_size() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # the others wait while the first process validates, which may take longer than the default allows
    torch.distributed.init_process_group(backend, timeout=datetime.timedelta(hours=6))
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def sum_over_processes(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one message."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()

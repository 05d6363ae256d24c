"""Processes that measure: one for each way, so that neither feels the other's allocator, threads or memory.

A child tells what it found in lines of JSON. Where two ways take turns, each waits on its standard input for
its next piece of work, so that only one of them is at it, and what slows the machine slows both.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.speed import processes

RESULT = "result: "
"""begins the line in which a child tells what it measured"""
OUT_OF_MEMORY = "out of memory"
Found = dict[str, Any]


class Gone(Exception):
    """A child ran out of memory; `found` says so, and what it had by then."""

    def __init__(self, found: Found) -> None:
        super().__init__(found["error"])
        self.found = found


class Child:
    """A process at work on an order."""

    def __init__(self, what: str, order: Found, folder: Path) -> None:
        if sys.stderr.isatty():
            print(f"{order['work']}: {what}", file=sys.stderr, flush=True)
        self.what, self.order = what, order
        command = [sys.executable, "-m", "benchmarks.speed", "--folder", str(folder)]
        # both ways use all cores, whatever the shell says
        threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "HF_HUB_OFFLINE": "1"}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 read when the process is over
        self.process = subprocess.Popen(
            [*command, "--child", json.dumps(order)], env={**processes.environment(), **threads},
            cwd=processes.ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip

    def told(self) -> Found:
        """What it tells next. Raises Gone where it ran out of memory, SystemExit for another fault."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(RESULT):
                found: Found = json.loads(line.removeprefix(RESULT))
                if found.get("error") == OUT_OF_MEMORY:
                    raise Gone({"cell": self.order.get("cell"), **found})
                return found
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read()
        if ran_out(code, said):
            raise Gone({"cell": self.order.get("cell"), "error": OUT_OF_MEMORY})
        raise SystemExit(f"{self.order['work']}: {self.what}: the process exits {code}:\n{said[-3000:]}")

    def turn(self, work: str = "go") -> Found:
        """Have it do its next piece of work, alone; what it tells of it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died while it waited: `told` says of what
            print(work, file=self.process.stdin, flush=True)
        return self.told()

    def last(self) -> Found:
        """What it tells when there is no more work."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.told()

    def end(self) -> None:
        """Be sure that it is gone."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


def told(what: str, order: Found, folder: Path) -> Found:
    """What a child found; with `error` where it ran out of memory. Raises SystemExit for another fault."""
    child = Child(what, order, folder)
    try:
        return child.told()
    except Gone as gone:
        return gone.found
    finally:
        child.end()


def ran_out(code: int, said: str) -> bool:
    """Whether a process died for want of memory: it was killed (9), or its limit refused an allocation."""
    phrases = ("can't allocate memory", "MemoryError", "out of memory", "OutOfMemoryError", "std::bad_alloc")
    return code == -9 or (code != 0 and any(phrase in said for phrase in phrases))


def tell(found: Found) -> None:
    """In a child: tell what was found."""
    print(RESULT + json.dumps(found, separators=(",", ":")), flush=True)


def turns() -> Iterator[str]:
    """In a child: the pieces of work, as they are asked for."""
    for line in sys.stdin:
        yield line.strip()


def modest() -> None:
    """In a child: fail before the machine does, at 90% of the memory that is free, and be killed first."""
    import psutil
    import torch

    if Path("/proc/self/oom_score_adj").exists():
        Path("/proc/self/oom_score_adj").write_text("1000")
    if not torch.cuda.is_available():  # CUDA reserves more addresses than there is memory
        most = int(0.9 * psutil.virtual_memory().available)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

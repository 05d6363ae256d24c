"""Run a command that may be missing, hang, fail or print anything at all. Nothing here raises."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass

from cotdistill.orchestration.doctor.finding import make_printable

TIMEOUT = 20.0
"""seconds that a command has to answer, unless more are given"""
MOST = 4_000_000
"""bytes of output above which a command is stopped"""


@dataclass(frozen=True)
class Answer:
    """What a command did: its exit code (None where it had to be stopped, or did not start) and its words."""

    command: str
    code: int | None
    out: str = ""
    err: str = ""
    problem: str = ""

    @property
    def good(self) -> bool:
        """It ran to its end and says that all is well."""
        return self.code == 0

    @property
    def said(self) -> str:
        """In one line what is wrong: our problem with it, else its own words."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        words = self.problem or "; ".join(lines) or f"exit code {self.code}"
        return make_printable(words if words.startswith(self.command) else f"{self.command}: {words}")

    @property
    def lines(self) -> list[str]:
        """Its output, without blank lines."""
        return [line for line in self.out.splitlines() if line.strip()]


def run(*command: str, timeout: float | None = None) -> Answer:
    """Run a command to its end, for `timeout` seconds at most; it and its children are stopped then."""
    name, timeout = os.path.basename(command[0]), timeout or TIMEOUT
    try:
        # the words of Slurm are compared and shown: in English
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return Answer(name, None, problem="no such command on this machine")
    except (OSError, ValueError) as error:
        return Answer(name, None, problem=f"does not start ({error})")
    deadline = time.monotonic() + timeout
    try:
        out, err, full = _read(process, deadline)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0 if full else max(deadline - time.monotonic(), 0.1))
        code = process.poll()
    finally:
        # also where it ended: a child that it left would hold our pipes, or run on
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
    problem = f"stopped after {MOST} bytes of output" if full else f"no answer in {timeout:g} s"
    return Answer(name, code, out, err, "" if code is not None and not full else problem)


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, str, bool]:
    """Return both outputs until they end or time is up, and whether they are more than is read."""
    parts: dict[object, list[bytes]] = {process.stdout: [], process.stderr: []}
    size = 0
    with selectors.DefaultSelector() as waiting:
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map() and size <= MOST and (left := deadline - time.monotonic()) > 0:
            ended = process.poll() is not None
            ready = waiting.select(min(left, 0.1))
            if ended and not ready:
                break  # all that it wrote is read; a child of its own may hold the pipe open
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    waiting.unregister(key.fileobj)
                size += len(data)
                parts[key.fileobj].append(data)
    out, err = (b"".join(part).decode("utf-8", errors="replace") for part in parts.values())
    return out, err, size > MOST

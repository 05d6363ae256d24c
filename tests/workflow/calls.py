"""Calls of `cotdistill reproduce` with a Snakemake that is not one, and a terminal for them."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2"]
LIMIT = 60.0


def until(true: Callable[[], Any], what: str) -> None:
    """Wait for something, a minute at most."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, f"{what}: not within {LIMIT:.0f} s"
        time.sleep(0.02)


@dataclass
class Calls:
    """A work folder whose Snakemake is `fake_snakemake`."""

    bench: Any

    @property
    def root(self) -> Path:
        return Path(self.bench.root)

    def prepare(self, **settings: Any) -> None:
        """Put the fake in place; `settings` are those of its `fake.json`."""
        folder = self.root / "lib" / "snakemake"
        folder.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).with_name("fake_snakemake.py"), folder / "__main__.py")
        (folder / "__init__.py").touch()
        (self.root / "fake.json").write_text(json.dumps(settings))

    def told(self) -> list[str]:
        """What the fake Snakemakes and their jobs wrote."""
        path = self.root / "fake.txt"
        return path.read_text().splitlines() if path.exists() else []

    def works(self) -> bool:
        """Whether a job has begun."""
        return any(line.endswith(" works") for line in self.told())

    def start(self, *more: str, **options: Any) -> subprocess.Popen[str]:
        """Start a call, its output in pipes, in a session of its own."""
        return subprocess.Popen(
            [*COMMAND, *more], cwd=self.root, env=self.bench.environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def is_gone(self) -> bool:
        """Whether the last job has ended, however."""
        pid = [line.split()[1] for line in self.told() if line.endswith(" works")][-1]
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True


class Terminal:
    """A call in a terminal of its own, where keys can be pressed."""

    def __init__(self, calls: Calls, command: list[str] = COMMAND) -> None:
        self.text = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(calls.root)
                os.execvpe(command[0], command, {**calls.bench.environment(), "COLUMNS": "200"})
            finally:
                os._exit(127)

    def read(self) -> bool:
        """Read what there is; False at the end."""
        while select.select([self.end], [], [], 0.1)[0]:
            try:
                found = os.read(self.end, 65536)
            except OSError:  # the other end is closed
                return False
            if not found:
                return False
            self.text += found.decode(errors="replace")
        return True

    def wait_for(self, true: Callable[[], Any], what: str) -> None:
        """Wait for something while reading."""

        def look() -> bool:
            assert self.read(), f"{what}: the call has ended: {self.text}"
            return bool(true())

        until(look, what)

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C: the terminal sends SIGINT to all of its foreground's processes."""
        os.write(self.end, b"\x03")

    def finish(self) -> int:
        """Wait for the end; returns the exit code."""
        until(lambda: not self.read(), "the end of the call")
        os.close(self.end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

"""Run Snakemake as a process of its own, its output in a log, and pass on every request to stop."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from cotdistill.common.surroundings import make_cache_environment

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 10.0
"""seconds that Snakemake has after a second request to stop, before it and its jobs are killed"""
KEPT_LOGS = 10
"""calls whose logs of Snakemake are kept"""
STOPPED = "Terminating processes on user request"
"""line of Snakemake's log after SIGINT"""
NEWEST = "snakemake.log"
"""link to the log of the newest call"""


class Requests:
    """Remember the signals that ask to stop, while `with requests:` holds; see `run`."""

    def __init__(self) -> None:
        self.signals: list[signal.Signals] = []

    @property
    def exit_code(self) -> int:
        """The exit code of a process that these signals stopped: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signals[0]

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Remember signals instead of ending; one that is ignored (nohup, a shell's `&`) stays ignored."""

        def remember(number: int, frame: FrameType | None) -> None:
            self.signals.append(signal.Signals(number))

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, remember)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(
    arguments: list[str], log: Path, requests: Requests, look: Callable[[int], None] = lambda asked: None
) -> int:
    """Run Snakemake until it ends; returns its exit code.

    Snakemake and its jobs are a process group of their own, so that a request to stop reaches each of them
    once, whoever sends it: Ctrl-C in a terminal, or a signal to this process alone. Jobs then save their
    state. A second request has them end at once.
    look: called twice a second meanwhile, with the number of requests so far, to show progress.
    """
    with open(log, "w", encoding="utf-8") as handle, requests.listen():
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments], process_group=0,
            stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, env=_make_environment(),
        )  # fmt: skip
        passed, impatient = 0, 0.0
        while process.poll() is None:
            time.sleep(0.5)
            if len(requests.signals) > passed:
                passed = len(requests.signals)
                impatient = time.monotonic() if passed > 1 else 0.0
                _signal_group(process, signal.SIGINT)
            elif impatient and time.monotonic() - impatient > GRACE:
                _signal_group(process, signal.SIGKILL)
            look(passed)
        if passed > 1:  # jobs that Snakemake did not wait for
            _signal_group(process, signal.SIGKILL)
    return process.returncode


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _make_environment() -> dict[str, str]:
    # the rules call `cotdistill` by name: find the one of this environment first
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    cache = make_cache_environment(Path(".snakemake", "cache"))
    return {**os.environ, **cache, "PATH": path, "PYTHONIOENCODING": "utf-8"}  # its output is our log


def begin_log(folder: Path) -> Path:
    """Name the log of this call and link `snakemake.log` to it; return the link. Removes old logs."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"snakemake-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.touch()
    for old in sorted(folder.glob("snakemake-*-*-*.log"))[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
    link = folder / NEWEST
    link.unlink(missing_ok=True)
    link.symlink_to(log.name)
    return link


class Jobs:
    """Follow the jobs that Snakemake names in its log."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._read = 0
        self._open: dict[str, str] = {}

    def list_stages(self) -> list[str]:
        """Return what the jobs in progress do, by their messages, but for trainings."""
        try:
            with open(self.log, "rb") as handle:
                handle.seek(self._read)
                text = handle.read()
        except OSError:
            return []
        text = text[: text.rfind(b"\n") + 1]  # the last line may be half-written
        self._read += len(text)
        for line in text.decode(errors="replace").splitlines():
            if begun := re.fullmatch(r"Job (\d+): (.+)", line):
                self._open[begun[1]] = begun[2]
            elif ended := re.match(r"(?:Finished jobid: |    jobid: )(\d+)", line):
                self._open.pop(ended[1], None)
        return [text for text in self._open.values() if not text.startswith("train ")]


def list_failed_logs(log: Path) -> list[Path]:
    """Return the logs of the jobs that failed before anybody asked to stop, as Snakemake's log names them."""
    text = log.read_text(encoding="utf-8", errors="replace").partition(STOPPED)[0]
    pattern = r"^Error in rule .*\n(?: +.*\n)*? +log: (.+?)(?: \(check log file.*)?$"
    return [Path(path) for path in dict.fromkeys(re.findall(pattern, text, re.MULTILINE))]

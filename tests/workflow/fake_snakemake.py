"""Stands for Snakemake in tests of the call around it: one job, a process that waits for a signal.

`fake.json` in the current folder says what it does:
    seconds     how long the job works at most
    deaf        signals that the job does not mind before it ends
    said        text for its log at the start
    code        exit code where nobody asked it to stop
It writes what happened into `fake.txt`: its calls, and the signals that the job got.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def tell(text: str) -> None:
    with open("fake.txt", "a", encoding="utf-8") as handle:
        handle.write(text + "\n")


def job(settings: dict[str, Any]) -> None:
    got: list[int] = []

    def note(number: int, frame: Any) -> None:
        got.append(number)
        tell(f"job got {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    tell(f"job {os.getpid()} works")
    until = time.monotonic() + settings["seconds"]
    while time.monotonic() < until and len(got) <= settings["deaf"]:
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    settings = {"seconds": 0, "deaf": 0, "said": "", "code": 0, **json.loads(Path("fake.json").read_text())}
    if "--job" in arguments:
        job(settings)
        return 0
    tell(f"snakemake {' '.join(arguments)}")
    locks = Path(".snakemake/locks")
    if "--unlock" in arguments:
        for path in locks.glob("*"):
            path.unlink()
        return 0
    if "--report" in arguments:
        return 0
    locks.mkdir(parents=True, exist_ok=True)
    Path(locks, "0.output.lock").write_text("results/tiny/results.csv\n")
    print(settings["said"], flush=True)
    stopped = False
    child = subprocess.Popen([sys.executable, "-m", "snakemake", "--job", "--mode", "subprocess"])
    while child.poll() is None:
        try:
            child.wait()
        except KeyboardInterrupt:
            stopped = True
            print("Terminating processes on user request, this might take some time.", flush=True)
    with contextlib.suppress(FileNotFoundError):
        Path(locks, "0.output.lock").unlink()
    tell("snakemake ends")
    return 1 if stopped else settings["code"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Disks that run full or turn read-only, and what two equal runs have in common."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cotdistill.cli import main
from cotdistill.config.grid import Run
from cotdistill.evaluation.protocols import evaluate
from cotdistill.jobs import stopping


class Disk:
    """A small disk of its own (a tmpfs), to be filled and made read-only."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fill(self) -> None:
        """Leave no byte free."""
        with open(self.root / "filler", "wb", buffering=0) as handle:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        handle.write(bytes(size))
                except OSError:
                    continue

    def readonly(self) -> None:
        """Refuse all writing from now on, to root too."""
        subprocess.run(["mount", "-o", "remount,ro", self.root], check=True)

    def mend(self) -> None:
        """Take the cause of the fault away."""
        subprocess.run(["mount", "-o", "remount,rw", self.root], check=True)
        (self.root / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 8 MB. Skips where none can be mounted."""
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
        refusal = found.stderr.strip() if found.returncode else ""
    except OSError as error:
        refusal = str(error)
    if refusal:
        pytest.skip(f"no disk of its own can be mounted here: {refusal}")
    yield Disk(root)
    subprocess.run(["umount", "-l", root], check=True)


@pytest.fixture
def numbers(history: Callable[[Run], Any]) -> Callable[[Run], dict[str, Any]]:
    """All that two equal runs have in common, to the last bit: every number but times."""

    def read(run: Run) -> dict[str, Any]:
        if not (run.folder / "metrics.json").exists():
            evaluate(run)
        metrics = json.loads((run.folder / "metrics.json").read_text())
        kept = ("strict", "published", "teacher", "sizes", "predictions_sha256")
        files = ("model/model.safetensors", "model_last/model.safetensors", "predictions.jsonl")
        return {
            **{name: (run.folder / name).read_bytes() for name in files},
            **{name: metrics[name] for name in kept}, "history": history(run),
        }  # fmt: skip

    return read


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Run `cotdistill <arguments>` in this process: "" where it ends well, else the one line of its error."""
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):  # train and evaluate set them for good
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    handlers = {number: signal.getsignal(number) for number in stopping.SIGNALS}

    def run(*arguments: object) -> str:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        err = capfd.readouterr().err
        if code == 0:
            return ""
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 1 and len(lines) == 1 and err.endswith(f"{lines[0]}\n"), err
        return lines[0].removeprefix("error: ")

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)

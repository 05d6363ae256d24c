"""Disks that run full or turn read-only."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cotdistill.cli import main
from cotdistill.common import stopping


def fill(folder: str) -> None:
    """Leave no byte free on the disk of `folder`."""
    with open(folder + "/filler", "wb", buffering=0) as handle:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    handle.write(bytes(size))
            except OSError:
                continue


class Disk:
    """A small disk of its own (a tmpfs), to be filled and made read-only."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fill(self) -> None:
        """Leave no byte free."""
        fill(str(self.root))

    def filling(self) -> str:
        """The same as code, for another process to execute."""
        return f"exec({inspect.getsource(fill)!r}, globals()); fill({str(self.root)!r})"

    def refusing(self) -> str:
        """`readonly` as code."""
        return f"subprocess.run(['mount', '-o', 'remount,ro', {str(self.root)!r}], check=True)"

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

"""The command line as a user has it: in this process where that is the same, else in one of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import pytest
import yaml

from cotdistill.cli import main

RUN = "demo/mini/dss/gold/1/0"


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def small(**changes: Any) -> dict[str, Any]:
    """The smallest config that trains; `changes` replace top-level keys."""
    return {
        "experiment": "tiny",
        "datasets": ["demo"],
        "students": [
            {"name": "mini", "scratch": {"d_model": 16, "d_ff": 16, "d_kv": 8, "heads": 2, "layers": 1,
                                         "vocabulary": 128}},
        ],
        "methods": ["dss", "mi"],
        "seeds": [0],
        "training": training(),
        "evaluation": {"max_new_tokens": 4, "batch_size": 259},
        **changes,
    }  # fmt: skip


def training(**changes: Any) -> dict[str, Any]:
    """The training settings of `small`; `changes` replace keys."""
    return {"steps": 4, "batch_size": 8, "eval_every": 4, "log_every": 2, "checkpoint_every": 2,
            "learning_rate": 0.003, "device": "cpu", **changes}  # fmt: skip


def write_config(folder: Path, text: str | None = None, **changes: Any) -> None:
    """`folder/config.yaml` with this text, or with the values of `small(**changes)`; a None drops a key."""
    values = {key: value for key, value in small(**changes).items() if value is not None}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values) if text is None else text, encoding="utf-8")


def files(folder: Path) -> set[str]:
    """All files below a folder, and the hidden folders that an unfinished write would leave."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.is_file() or path.name.startswith(".")) and path.name != "failure.txt"
    }


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty work folder: the current one, with no published data in sight."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COTDISTILL_DATA", raising=False)
    for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):  # train and evaluate set them for good
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    return tmp_path


@pytest.fixture
def configure(work: Path) -> Callable[..., None]:
    """Write the config file of the work folder: `configure(seeds=[1])`, `configure(text="...")`.

    `training` is a dict of changes to the training settings.
    """

    def write(text: str | None = None, **changes: Any) -> None:
        if "training" in changes:
            changes["training"] = training(**changes["training"])
        write_config(work, text, **changes)

    return write


@pytest.fixture
def cotdistill(work: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = main(arguments)
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def process(work: Path) -> Callable[..., Outcome]:
    """Run a command in a process of its own, as from a shell without a GPU."""

    def run(*arguments: str, **options: Any) -> Outcome:
        found = subprocess.run(
            [sys.executable, "-m", "cotdistill", *arguments],
            capture_output=True, text=True, cwd=work, env=child_environment(), timeout=300, **options,
        )  # fmt: skip
        return Outcome(found.returncode, found.stdout, found.stderr)

    return run


def child_environment() -> dict[str, str]:
    """This process's environment, with no GPU and this Python's commands first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def one_line(found: Outcome) -> str:
    """The one line of a refused command, without `error: `."""
    assert found.code == 1, found
    lines = found.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), found.err
    assert found.err.endswith("\n"), "the shell's prompt goes on its own line"
    return lines[0].removeprefix("error: ")


@pytest.fixture
def complaint() -> Callable[[Outcome], str]:
    """Check that a command ended with one line that starts with `error: `; returns the rest of it."""
    return one_line


@pytest.fixture
def listing(work: Path) -> Callable[[], set[str]]:
    """All files of the work folder, and the hidden folders that an unfinished write would leave.

    Without the line that a refused job leaves for `cotdistill status`.
    """
    return lambda: files(work)


@pytest.fixture
def refused(work: Path, cotdistill: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a command that must be refused with one line, and leave no file behind; returns the line."""

    def run(*arguments: str) -> str:
        before = files(work)
        line = one_line(cotdistill(*arguments))
        assert files(work) == before, "a refused command leaves nothing half-written"
        return line

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with one trained and evaluated run; shared between processes, so copy it."""
    base = tmp_path_factory.getbasetemp()
    # without workers the parent is the folder of all sessions: an older one's run would be taken
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cli-finished"
    with filelock.FileLock(f"{shared}.lock"), pytest.MonkeyPatch.context() as patch:
        if not shared.exists():
            making = tmp_path_factory.mktemp("making")
            patch.chdir(making)
            patch.setenv("HF_HUB_OFFLINE", "1")
            patch.setenv("TOKENIZERS_PARALLELISM", "false")
            write_config(making)
            assert main(["prepare", "--dataset", "demo", "--student", "mini"]) == 0
            assert main(["train", "--run", RUN]) == 0
            assert main(["evaluate", "--run", RUN]) == 0
            making.rename(shared)
    return shared


@pytest.fixture
def trained(finished: Path, work: Path) -> Path:
    """The current work folder, with one finished run in it; returns the run's folder."""
    shutil.copytree(finished, work, dirs_exist_ok=True)
    return Path("results/tiny/runs", RUN)

"""Jobs done by forks of a warm process: the same numbers, output, exit codes, and deaths."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cotdistill
from cotdistill.jobs.train import train
from cotdistill.orchestration import warm

LONG = {"steps": 4000, "eval_every": 4000, "checkpoint_every": 5}


@contextlib.contextmanager
def warm_process(path: Path, environment: dict[str, str] | None = None) -> Iterator[Path]:
    """Start a warm process whose socket is `path`, in a folder of its own; end it as `begin` would."""
    command = [sys.executable, "-m", warm.PROCESS, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment)
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)
    yield path
    process.stdin.close()  # type: ignore[union-attr]
    assert process.wait(60) == 0 and not path.parent.exists(), "it ends with who started it"


@pytest.fixture(scope="module")
def address(tmp_path_factory: Any) -> Iterator[Path]:
    with warm_process(tmp_path_factory.mktemp("warm") / "warm") as path:
        yield path


def job(address: Path | None, *arguments: Any, environment: Any = os.environ, **more: Any) -> Any:
    """Start a command; address: of the warm process that it asks, None for none."""
    command = [sys.executable, "-m", "cotdistill", *map(str, arguments)]
    asked = {} if address is None else {warm.ADDRESS: str(address)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**environment, **asked}, text=True, **pipes, **more)


def until(condition: Any) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_warm_run_gives_the_same_bits(address: Path, tiny: Any, tmp_path: Path, numbers: Any):
    more = {"evaluation": {"rationales": True}}
    config, run = tiny.config_file(tmp_path / "warm", "mi", **more)
    process = job(address, "train", "--config", config, "--run", run.id)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "colours" in err, err
    whole = tiny.run(tmp_path / "cold", "mi", **more)
    train(whole)
    assert numbers(run) == numbers(whole)
    process = job(address, "evaluate", "--config", config, "--run", run.id)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "strict" in out


def test_the_job_does_not_import_torch_itself(address: Path, tiny: Any, tmp_path: Path):
    config, run = tiny.config_file(tmp_path, "dss")
    arguments = ["train", "--config", config, "--run", run.id]
    command = [sys.executable, "-X", "importtime", "-m", "cotdistill", *arguments]
    environment = {**os.environ, warm.ADDRESS: str(address)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr[-2000:]
    imported = {line.split("|")[-1].strip() for line in found.stderr.splitlines()}
    assert "cotdistill.orchestration.warm" in imported and not imported & {"torch", "transformers", "numpy"}


def test_errors_and_exit_codes_come_back(address: Path, tiny: Any, tmp_path: Path):
    config, _ = tiny.config_file(tmp_path, "dss")
    arguments = ("train", "--config", config.name, "--run", "no/such/run/gold/1/0")
    process = job(address, *arguments, cwd=config.parent)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and not out
    assert err.startswith("error: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("sent", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 75), ("SIGKILL", -9)]
)
def test_signals_reach_the_work_and_it_dies_with_the_job(
    address: Path, tiny: Any, tmp_path: Path, sent: str, code: int
):
    config, run = tiny.config_file(tmp_path, "dss", **LONG)
    process = job(address, "train", "--config", config, "--run", run.id)
    until(lambda: list(run.state.glob("step-*")))
    process.send_signal(signal.Signals[sent])
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    if code == 75:
        assert f"stopped by {sent}" in err
        return
    # whoever takes the run over must not find it at work
    time.sleep(1)
    states = sorted(run.state.glob("step-*"))
    time.sleep(1)
    assert sorted(run.state.glob("step-*")) == states


def test_without_a_warm_process_a_job_works_by_itself(tiny: Any, tmp_path: Path):
    config, run = tiny.config_file(tmp_path, "finetune")
    process = job(tmp_path / "gone", "train", "--config", config, "--run", run.id)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (run.folder / "training.json").is_file()


# --- the code that a fork runs is the code on disk


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to edit."""
    ignore = shutil.ignore_patterns("__pycache__")
    folder = tmp_path / "lib" / "cotdistill"
    shutil.copytree(Path(cotdistill.__file__).parent, folder, ignore=ignore)
    return folder


def test_code_that_was_edited_since_the_imports_is_run_as_it_is_on_disk(
    copy: Path, tiny: Any, tmp_path: Path, numbers: Any
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy.parent)}

    def trained(name: str, address: Path | None) -> Any:
        config, run = tiny.config_file(tmp_path / name, "dss")
        process = job(address, "train", "--config", config, "--run", run.id, environment=environment)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return numbers(run), json.loads(run.files.training.read_text())["origin"]

    (tmp_path / "warm").mkdir()
    with warm_process(tmp_path / "warm" / "warm", environment) as address:
        before = trained("before", address)
        seeds = copy / "common" / "seeds.py"  # what the warm process itself has imported
        text = seeds.read_text()
        changed = text.replace("text = purpose +", "text = 'other' + purpose +")
        assert changed != text, "choose another place to edit"
        seeds.write_text(changed)
        after = trained("after", address)
    assert after == trained("cold", None) and after[0] != before[0] and after[1] != before[1]


def test_every_source_file_counts(copy: Path) -> None:
    before = warm.digest_sources(copy)
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "cli.pyc").touch()
    assert warm.digest_sources(copy) == before
    for name in ("methods/dss.py", "analysis/reported.yaml", "new.py"):
        with open(copy / name, "a") as handle:
            handle.write("# more\n")
        changed = warm.digest_sources(copy)
        assert changed != before
        before = changed


@pytest.mark.parametrize("other", ["package", "Python"])
def test_a_job_of_another_installation_works_by_itself(
    other: str, address: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(warm.ADDRESS, str(address))
    arguments = ["train", "--config", str(tmp_path / "none.yaml"), "--run", "x"]
    if other == "package":
        monkeypatch.setattr(warm, "PACKAGE", copy)
    else:
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert warm.run(arguments) is None

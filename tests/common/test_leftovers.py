"""What a killed process left of a file that it was writing is removed by the next that writes the file."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.common import files
from cotdistill.common.files import atomic, remove_leftovers, write_json, write_text

WRITE = """
import sys
from pathlib import Path
from cotdistill.common.files import atomic
with atomic(Path(sys.argv[1])) as part:
    if sys.argv[2] == "folder":
        part.mkdir()
    (part / "one" if sys.argv[2] == "folder" else part).write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def write() -> Iterator[Callable[[Path, str], subprocess.Popen[str]]]:
    """Start a process that stands between writing a target and renaming it."""
    started = []

    def start(target: Path, kind: str = "file") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(target), kind], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])},
        )  # fmt: skip
        started.append(process)
        assert process.stdout and process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_writing_of_a_target_removes_what_a_killed_one_left(
    tmp_path: Path, write: Callable[..., subprocess.Popen[str]], kind: str
) -> None:
    target, other = tmp_path / "results.csv", tmp_path / "history.csv"
    for _ in range(2):
        kill(write(target, kind))
    kill(write(other))
    assert len(hidden(tmp_path)) == 2, "the second has removed what the first left"
    write_text(target, "whole")
    assert target.read_text() == "whole"
    assert [name.rsplit(".", 1)[0] for name in hidden(tmp_path)] == [".history.csv"], "another target's"
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == []


def test_what_a_living_process_writes_stays(
    tmp_path: Path, write: Callable[..., subprocess.Popen[str]]
) -> None:
    target = tmp_path / "figure.png"
    process = write(target)
    before = hidden(tmp_path)
    remove_leftovers(tmp_path)
    write_text(target, "of another")
    assert hidden(tmp_path) == before and target.read_text() == "of another"
    process.send_signal(signal.SIGSTOP)  # sleeps for long, as on a suspended machine
    remove_leftovers(tmp_path)
    process.send_signal(signal.SIGCONT)
    process.communicate("go on")
    assert process.returncode == 0
    assert target.read_text() == "half" and hidden(tmp_path) == []


def test_where_files_cannot_be_locked_nothing_is_removed(
    tmp_path: Path, write: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(write(tmp_path / "table.csv"))

    def refuse(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_text(tmp_path / "table.csv", "whole")
    assert (tmp_path / "table.csv").read_text() == "whole" and len(hidden(tmp_path)) == 1
    files.sweep(tmp_path)
    assert hidden(tmp_path) == [], "who alone writes to a folder needs no lock"


def test_folders_that_only_look_like_it_stay(tmp_path: Path) -> None:
    kept = [".venv", ".config.settings", ".snakemake.metadata", "a.b.abcdefgh", ".data.abcdefghi"]
    for name in kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".file.abcdefgh").touch()
    (tmp_path / ".link.abcdefgh").symlink_to(tmp_path / ".venv")
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "not there")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_taken_before_its_lock_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, takers = files.tempfile.mkdtemp, [lambda: remove_leftovers(tmp_path), lambda: None]

    def taken(**options: object) -> str:
        made = real(**options)  # type: ignore[call-overload]
        takers.pop(0)()
        return str(made)

    monkeypatch.setattr(files.tempfile, "mkdtemp", taken)
    with atomic(tmp_path / "file") as part:
        part.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole" and hidden(tmp_path) == [] and not takers


@settings(deadline=None, max_examples=25)
@given(
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=30)
)
def test_leftovers_are_found_whatever_the_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    if name in (".", ".."):
        return
    folder = tmp_path_factory.mktemp("named")
    target = folder / name
    child = os.fork()
    if not child:
        with atomic(target):
            os._exit(9)  # as a kill: nothing of ours runs after it
    os.waitpid(child, 0)
    assert len(list(folder.iterdir())) == 1
    write_json(target, 1)
    assert list(folder.iterdir()) == [target]


@pytest.mark.slow
def test_killed_at_any_moment_the_next_call_leaves_the_whole_alone(tmp_path: Path) -> None:
    moments, target = random.Random(3), tmp_path / "folder"
    for _ in range(60):
        child = os.fork()
        if not child:
            while True:
                with atomic(target) as part:
                    part.mkdir()
                    for number in range(5):
                        (part / str(number)).write_text("x" * 1000)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with atomic(target) as part:
            part.mkdir()
            (part / "whole").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]
        assert [path.name for path in target.iterdir()] == ["whole"]

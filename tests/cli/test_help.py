"""Help, version and the plain faults of usage: quick, and without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cotdistill
from cotdistill.cli import main
from cotdistill.cli.commands import COMMANDS

HEAVY = {"torch", "transformers", "pandas", "snakemake", "datasets", "mlflow", "matplotlib", "scipy", "numpy"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from cotdistill.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as stop:\n"
        "    print('stopped with', stop.code)\n"
        "print('imported', *sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "stopped with 0" in found.stdout
    imported = set(found.stdout.rsplit("imported ", 1)[1].split())
    assert "cotdistill.cli.commands" in imported
    assert not imported & HEAVY


def test_planning_and_refusing_a_config_import_no_torch(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "experiment: e\ndatasets: [demo]\nstudents: [{name: mini, scratch: {}}]\nmethods: [dss, mi]\n"
    )
    code = (
        "import sys\n"
        "from cotdistill.cli import main\n"
        "assert main(['plan']) == 0\n"
        "assert main(['train', '--run', 'nonsense']) == 1\n"
        "print('imported', *sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not set(found.stdout.rsplit("imported ", 1)[1].split()) & {"torch", "transformers", "pandas"}


def test_every_command_is_listed_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.partition("commands:")[2].split())
    for name, command in COMMANDS.items():
        sentence = " ".join((command.__doc__ or "").splitlines()[0].rstrip(".").split())
        assert len(sentence) > 10 and f"{name} {sentence}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_for_each_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"cotdistill {name}" in text
    first = (COMMANDS[name].__doc__ or "").split("\n")[0].split(",")[0].split(" (")[0]
    assert first and first in " ".join(text.split()), "says what it does"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"cotdistill {cotdistill.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [([], "COMMAND"), (["trian"], "train"), (["train"], "--run"),
     (["prepare", "--dataset", "demo"], "--student"), (["plan", "--cores", "2"], "--cores")],
    ids=["no command", "unknown command", "no run", "no student", "option of another command"],
)  # fmt: skip
def test_wrong_usage_ends_with_2_and_says_what_is_missing(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_module_is_the_command(process: Callable[..., Any]) -> None:
    assert process("--version").out == f"cotdistill {cotdistill.__version__}\n"

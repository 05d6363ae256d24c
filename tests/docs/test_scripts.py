"""Every file of the checkout that is run as a script says how it is called, and shows no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "docs", "src", "workflow", "profiles")


def find_scripts() -> list[str]:
    """The files that do something when they are run, by their path from the root."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in found if is_script(path))


def is_script(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return path.name == "__main__.py" or '__name__ == "__main__"' in text


def call(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = Path(script)
    command = [script]
    if path.name == "__main__.py":  # a package, which is run by its name
        command = ["-m", ".".join(part for part in path.parent.parts if part != "src")]
    return subprocess.run(
        [sys.executable, *command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_scripts_are_found() -> None:
    assert {"docs/gallery.py", "benchmarks/tracking.py", "benchmarks/speed/__main__.py"} <= {*find_scripts()}


@pytest.mark.parametrize("script", find_scripts())
def test_wrong_options_get_a_usage_line(script: str) -> None:
    found = call(script, "--nonsense")
    assert found.returncode == 2, found.stderr
    assert "usage: " in found.stderr and "Traceback" not in found.stderr
    assert not found.stdout


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("docs/gallery.py", []),
        ("docs/gallery.py", ["nowhere"]),
        ("docs/gallery.py", ["docs", "accuracy"]),
        ("benchmarks/simulate_statistics.py", ["many"]),
        ("benchmarks/simulate_statistics.py", ["power", "--repetitions", "0"]),
        ("benchmarks/simulate_statistics.py", ["--seeds", "3", "1"]),
        ("benchmarks/tracking.py", ["--runs", "few"]),
        ("benchmarks/machines.py", ["--seeds", "many"]),
        ("benchmarks/speed/__main__.py", ["--part", "all of it"]),
        ("src/cotdistill/cli/warm_process.py", []),
        ("src/cotdistill/orchestration/doctor/node.py", []),
        ("src/cotdistill/__main__.py", []),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "none",
)
def test_missing_and_wrong_arguments_get_a_usage_line(script: str, arguments: list[str]) -> None:
    found = call(script, *arguments)
    assert found.returncode == 2, found.stderr
    assert "usage: " in found.stderr and "Traceback" not in found.stderr

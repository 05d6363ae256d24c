"""pyproject.toml, requirements.lock, environment.yml and what is installed say the same."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import cotdistill

ROOT = Path(__file__).parents[2]


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def direct() -> list[Requirement]:
    """What pyproject.toml asks for: to run, to develop and to build."""
    project = pyproject()
    texts = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    return [Requirement(text) for text in texts + project["build-system"]["requires"]]


def lock() -> dict[str, Version]:
    """The pins of requirements.lock; every line that is not a comment must be one."""
    pins: dict[str, Version] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, equals, version = line.partition("==")
        assert equals, f"not a pin: {line}"
        assert canonicalize_name(name) not in pins, f"pinned twice: {name}"
        pins[canonicalize_name(name)] = Version(version)
    return pins


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_lock_pins_what_pyproject_asks_for(requirement: Requirement) -> None:
    pinned = lock().get(canonicalize_name(requirement.name))
    assert pinned is not None, "run `make lock`"
    assert pinned in requirement.specifier


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_ranges_are_bounded(requirement: Requirement) -> None:
    bounded = any(bound.operator in ("==", "<", "~=") for bound in requirement.specifier)
    # stubs and the build backend do not touch results
    assert bounded or requirement.name.startswith(("types-", "setuptools"))


def test_lock_holds_for_every_build_of_a_version() -> None:
    assert not [name for name, version in lock().items() if version.local]


def test_conda_installs_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (by_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert by_pip == ["-r requirements.lock", "-e ."]
    (python,) = (entry for entry in environment["dependencies"] if str(entry).startswith("python="))
    version = python.removeprefix("python=")
    allowed = SpecifierSet(pyproject()["project"]["requires-python"])
    assert Version(version) in allowed


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="runs in .venv, which `make setup` builds")
def test_installed_versions_are_the_locked_ones() -> None:
    wrong = {}
    for name, version in lock().items():
        installed = Version(importlib.metadata.version(name))
        if installed.public != version.public:
            wrong[name] = f"{installed}, not {version}"
    assert not wrong


def imported(path: Path) -> Iterator[str]:
    """The packages that a source file imports, by their top-level name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def test_every_import_is_a_declared_dependency() -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in pyproject()["project"]["dependencies"]}
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "src").rglob("*.py")
        for name in imported(path)
        if name not in sys.stdlib_module_names
        and name != "cotdistill"
        and declared.isdisjoint(canonicalize_name(p) for p in providers.get(name, []))
    }
    assert not undeclared


def test_console_script_exists() -> None:
    for target in pyproject()["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cotdistill.__version__
    assert f"## [{cotdistill.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["license"] == pyproject()["project"]["license"] == "Apache-2.0"

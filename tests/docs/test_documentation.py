"""What the documentation shows, runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def extended(tmp_path: Path) -> dict[str, str]:
    """A copy of the package with the two plug-ins of docs/extending.md, first on the path of a child."""
    package = tmp_path / "src" / "cotdistill"
    shutil.copytree(ROOT / "src" / "cotdistill", package, ignore=shutil.ignore_patterns("__pycache__"))
    adapter, method = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    (package / "data/adapters/mine.py").write_text(adapter)
    (package / "methods/confident.py").write_text(method)
    return {**os.environ, "PYTHONPATH": str(package.parent)}


def test_example_adapter_loads(extended: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for split, rows in (("train", 20), ("test", 3)):
        lines = [{"question": f"{i}?", "answer": str(i), "why": f"it is {i}", "story": f"s{i}"}
                 for i in range(rows)]  # fmt: skip
        (folder / f"{split}.json").write_text("\n".join(map(json.dumps, lines)))
    code = f"from cotdistill.data import load; splits = load('mine', {str(tmp_path)!r})"
    code += "; print({name: len(split) for name, split in splits.items()})"
    answer = subprocess.run([sys.executable, "-c", code], env=extended, capture_output=True, text=True)
    assert answer.stdout.strip() == "{'train': 18, 'valid': 2, 'test': 3}", answer.stderr


def test_example_method_trains(extended: dict[str, str], tmp_path: Path) -> None:
    config = {
        "experiment": "docs", "datasets": ["demo"], "results": str(tmp_path / "results"), "seeds": [0],
        "students": [{"name": "tiny", "scratch": {"d_model": 16, "d_ff": 32, "heads": 2, "layers": 1}}],
        "methods": ["dss", {"name": "confident", "gamma": 0.05}],
        "training": {"steps": 2, "batch_size": 4, "eval_every": 2, "log_every": 1, "device": "cpu"},
    }
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(config))
    for command in (
        ["prepare", "--dataset", "demo", "--student", "tiny"],
        ["train", "--run", "demo/tiny/confident/gold/1/0"],
    ):
        call = [sys.executable, "-m", "cotdistill", *command, "--config", str(path)]
        answer = subprocess.run(call, env=extended, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
    history = tmp_path / "results/docs/runs/demo/tiny/confident/gold/1/0/history.jsonl"
    assert "loss/entropy" in json.loads(history.read_text().splitlines()[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_commands_of_the_readme_exist() -> None:
    """Every `cotdistill X` and `make X` of the documents is a command and a target."""
    from cotdistill.cli.commands import COMMANDS

    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`?cotdistill ([a-z]+)`", text)) <= set(COMMANDS)
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                assert words[1] in targets, line
            if words[:1] == ["cotdistill"]:
                assert words[1] in COMMANDS, line


def test_configs_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all((ROOT / name).is_file() for name in re.findall(r"CONFIG=([\w./-]+)", text))


def test_the_picture_of_the_floors_is_what_the_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = [contract["layers"] for contract in contracts if contract["name"] == "floors"]
    section = (ROOT / "docs/design.md").read_text().split("## Floors")[1].split("```text\n")[1]
    drawn = [re.split(r"  +", line)[0] for line in section.split("```")[0].splitlines()]
    assert drawn == floors
    source = ROOT / "src" / "cotdistill"
    packages = {path.name for path in source.iterdir() if (path / "__init__.py").is_file()}
    assert {name for floor in floors for name in floor.split(" | ")} == packages


def test_the_files_of_the_walk_are_there() -> None:
    walk = (ROOT / "docs/design.md").read_text().split("## A newcomer's walk")[1].split("## Words")[0]
    named = re.findall(r"`([a-z_<>/]+\.py)`", walk)
    assert len(named) > 20
    for name in named:
        for filled in [name.replace("<name>", each) for each in ("cqa", "mi")]:
            path = ROOT / "src" / "cotdistill" / filled.replace("<engine>", "reference")
            if path.is_file():
                break
        else:
            raise AssertionError(f"docs/design.md names {name}, which is no file")


def test_every_command_names_its_config() -> None:
    """Without it `config.yaml` is meant, the paper's grid of 200 runs, which few readers have in mind."""
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["snakemake"]:
                    assert "--configfile" in words, f"{page}: {line}"
                if words[:1] == ["cotdistill"]:
                    assert "--config" in words or words[1] == "schema", f"{page}: {line}"
        inline = re.findall(r"`(snakemake (?:figures|compare|track|collect)[^`]*)`", page.read_text("utf-8"))
        assert all("--configfile" in text for text in inline), f"{page}: {inline}"

"""A bad config file: one line on stderr that names the key and what was expected, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# what is changed in a good config, and what the line must name
BAD = {
    "unknown key": ({"lables": ["gold"]}, ["'lables'", "did you mean 'labels'?"]),
    "unknown training key": (
        {"training": {"lerning_rate": 1}}, ["'training.lerning_rate'", "did you mean 'learning_rate'?"],
    ),
    "unknown setting of a method": (
        {"methods": ["dss", {"name": "mi", "betta": 0.1}]},
        ["methods[1]", "'betta'", "did you mean 'beta'?"],
    ),
    "wrong type": ({"training": {"steps": "many"}}, ["'training.steps'", "integer", "'many'"]),
    "fraction for a whole number": ({"training": {"steps": 1.5}}, ["'training.steps'", "1.5"]),
    "no seeds": ({"seeds": []}, ["'seeds'", "at least 1"]),
    "no datasets": ({"datasets": []}, ["'datasets'", "at least 1"]),
    "a key that is missing": ({"methods": None}, ["'methods' is missing"]),
    "empty grid": ({"exclude": [{"seed": [0]}]}, ["grid is empty", "'exclude'"]),
    "unknown dataset": ({"datasets": ["demmo"]}, ["datasets[0]", "'demmo'", "did you mean 'demo'?", "cqa"]),
    "unknown method": ({"methods": ["dsss"]}, ["methods[0]", "'dsss'", "did you mean 'dss'?", "finetune"]),
    "unknown dataset in a filter": ({"include": [{"dataset": ["cqa"]}]}, ["include[0]", "'cqa'", "demo"]),
    "student of no kind": ({"students": [{"name": "mini"}]}, ["students[0]", "'pretrained' and 'scratch'"]),
    "fraction 0": ({"fractions": [0.0]}, ["fractions[0]", "greater than 0", "0.0"]),
    "fraction above 1": ({"fractions": [0.5, 1.5]}, ["fractions[1]", "less than or equal to 1", "1.5"]),
    "fp16": ({"training": {"precision": "fp16"}}, ["precision", "T5 diverges in fp16", "bf16 or fp32"]),
    "a name that is a path": ({"experiment": "../up"}, ["'experiment'", "'../up'"]),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD)
def test_bad_config(
    changes: dict[str, Any],
    named: list[str],
    configure: Callable[..., None],
    refused: Callable[..., str],
) -> None:
    configure(**changes)
    line = refused("plan")
    assert line.startswith("config.yaml: ")
    assert not [words for words in named if words not in line], line


@pytest.mark.parametrize(
    "command",
    [["fetch"], ["prepare", "--dataset", "demo", "--student", "mini"], ["train", "--run", "demo"],
     ["evaluate", "--run", "demo"], ["collect"], ["compare"], ["figures"], ["track"], ["reproduce"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_every_command_refuses_it_first(
    command: list[str], configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure(sedes=[0])
    assert "unknown key 'sedes'; did you mean 'seeds'?" in refused(*command)


TEXTS = {
    "not YAML": ("experiment: [tiny\ndatasets: demo\n", "config.yaml:2"),
    "a key twice": ("experiment: a\nexperiment: b\n", "config.yaml:2: not valid YAML (key 'experiment' "),
    "a list": ("- demo\n", "expected keys and values, found list"),
    "nothing": ("", "expected keys and values, found NoneType"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "named"), TEXTS.values(), ids=TEXTS)
def test_unreadable_config(
    text: str, named: str, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure(text=text)
    assert named in refused("plan")


def test_config_that_is_not_there(refused: Callable[..., str]) -> None:
    assert refused("plan", "--config", "config/papr.yaml") == "config/papr.yaml: no such config file"


def test_config_that_is_a_folder(work: Path, refused: Callable[..., str]) -> None:
    (work / "config.yaml").mkdir()
    assert refused("plan").startswith("cannot read config.yaml: ")


def test_config_that_is_not_text(work: Path, refused: Callable[..., str]) -> None:
    (work / "config.yaml").write_bytes(b"experiment: \xff\n")
    assert "config.yaml" in refused("plan")


def test_unknown_dataset_and_student_to_prepare(
    configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure()
    line = refused("prepare", "--dataset", "dem", "--student", "mini")
    assert line == "unknown dataset 'dem'; did you mean 'demo'? (known: demo)"
    line = refused("prepare", "--dataset", "demo", "--student", "minni")
    assert line == "unknown student 'minni'; did you mean 'mini'? (known: mini)"


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_unknown_run_names_the_near_one(
    command: str, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure(seeds=[0, 1])
    line = refused(command, "--run", "demo/mini/dss/gold/1/2")
    assert "unknown run 'demo/mini/dss/gold/1/2'; did you mean 'demo/mini/dss/gold/1/" in line
    line = refused(command, "--run", "demo/mini/dss/gold/0")
    assert "did you mean 'demo/mini/dss/gold/1/0'?" in line


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_config_edited_after_planning_is_refused(
    command: str, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure()
    line = refused(command, "--run", "demo/mini/dss/gold/1/0", "--expect", "0123456789abcdef")
    assert line.startswith("config.yaml: run demo/mini/dss/gold/1/0 has config hash ")
    assert "planned with 0123456789abcdef" in line and "start snakemake again" in line

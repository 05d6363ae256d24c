"""Folders of a config: `~` and variables are expanded once, and what is no folder is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.config.paths import check_folder, escape_folder, expand_folder
from cotdistill.runs.experiment import load, parse
from cotdistill.runs.grid import expand

Config = dict[str, Any]
Complaint = Callable[[Any], str]

CUSTOM = {"name": "own", "adapter": "custom", "path": "data"}
STUDENT = {"name": "t5", "pretrained": "models/t5"}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("SCRATCH", "/scratch/$5/a b")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("results", "results"),
        ("~/cot", "/home/ann/cot"),
        ("~", "/home/ann"),
        ("$SCRATCH/cot", "/scratch/$5/a b/cot"),
        ("${HOME}/cot", "/home/ann/cot"),
        ("a/$HOME", "a//home/ann"),
        ("x$$HOME", "x$HOME"),
        ("./~/cot", "./~/cot"),
        ("my results {v2} [x] 'q' $$y", "my results {v2} [x] 'q' $y"),
        ("cost 5$", "cost 5$"),
        ("$(touch x);`y`", "$(touch x);`y`"),
        ("{}", "{}"),
        ("{", "{"),
        ("../x//y/", "../x//y/"),
        ("größe", "größe"),
        ("a~b", "a~b"),
    ],
)
@pytest.mark.usefixtures("variables")
def test_folders_are_expanded_once(config: Config, written: str, meant: str) -> None:
    folders = {"results": written, "data_root": written}
    dataset, student = {**CUSTOM, "path": written}, {**STUDENT, "pretrained": written}
    found = parse(config | folders | {"datasets": [dataset], "students": [student]}, "test")
    again = parse(json.loads(json.dumps(found.model_dump(mode="json"))), "grid.json")
    for experiment in (found, again):
        assert experiment.results == experiment.data_root == meant
        assert experiment.datasets[0].path == experiment.students[0].pretrained == meant
    assert [run.hash for run in expand(again)] == [run.hash for run in expand(found)]


def test_folders_without_variables_keep_their_hash(config: Config) -> None:
    """A dump of them is what it was before anything was expanded."""
    run = expand(parse(config | {"datasets": [CUSTOM], "students": [STUDENT]}, "test"))[0]
    assert run.config["dataset_settings"]["path"] == "data"
    assert run.config["student_settings"]["pretrained"] == "models/t5"


@pytest.mark.usefixtures("variables")
def test_hub_ids_are_not_touched(config: Config) -> None:
    (student,) = parse(config | {"students": ["google/t5-v1_1-small"]}, "test").students
    assert (student.name, student.pretrained) == ("t5-v1_1-small", "google/t5-v1_1-small")
    (student,) = parse(config | {"students": ["$HOME/t5"]}, "test").students
    assert (student.name, student.pretrained) == ("t5", "/home/ann/t5")


REFUSED = {
    "$NOWHERE/x": "the environment variable NOWHERE is not set",
    "${NOWHERE}": "the environment variable NOWHERE is not set",
    "$EMPTY/x": "the environment variable EMPTY is empty",
    "${a b}": "${a b} is not the name of a variable",
    "~nobody-of-this-name/x": "'~nobody-of-this-name' is nobody's home",
    "": "this is empty",
    "  ": "this is empty",
    "-option": "must not begin with '-'",
    "s3://bucket/x": "this is an address",
    "a\nb": "character 2 is U+000A",
    "a\x1b[31m": "character 2 is U+001B",
    "a\u2028b": "character 2 is U+2028",
    "x" * 5000: "255 bytes at most",
    "é" * 200: "255 bytes at most",
    "/x" * 2000: "3000 bytes at most",
}


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("key", ["results", "data_root", "path", "pretrained"])
@pytest.mark.parametrize(("text", "reason"), REFUSED.items(), ids=[ascii(text)[:20] for text in REFUSED])
def test_what_is_no_folder_is_refused(
    config: Config, complaint: Complaint, key: str, text: str, reason: str
) -> None:
    entry = {"datasets": [{**CUSTOM, "path": text}], "students": [{**STUDENT, "pretrained": text}]}
    changes = {"path": {"datasets": entry["datasets"]}, "pretrained": {"students": entry["students"]}}
    message = complaint(config | changes.get(key, {key: text}))
    assert reason in message and key in message and len(message) < 300


@pytest.mark.parametrize("letters", ['"\\0"', '"a\\ud800"', '"\\x85"'])
def test_letters_that_yaml_can_spell_and_no_file_system_can(
    config: Config, complaint: Complaint, letters: str
) -> None:
    message = complaint(yaml.safe_dump(config) + f"results: {letters}\n")
    assert "results" in message and "which a path must not hold" in message


def test_results_that_are_a_file(config: Config, complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("mine")
    for results in (tmp_path / "small", tmp_path / "small" / "deeper", tmp_path):
        message = complaint(config | {"results": str(results)})
        assert message == f": 'results': {tmp_path / 'small'} is there and is no folder"
    assert (tmp_path / "small").read_text() == "mine"


def test_a_question_mark_keeps_the_default_store_away(config: Config, complaint: Complaint) -> None:
    assert "MLflow's SQLite store cannot be in a folder with '?'" in complaint(config | {"results": "why?"})
    parse(config | {"results": "why?", "tracking": {"uri": "sqlite:///runs.db"}}, "test")


HOSTILE = st.text(st.sampled_from("ab/.~$ {}[]'\"\\&;|<>*?%#!`()-=:,@\n\t\0é\u2028\ud800x"), max_size=40)


@given(HOSTILE | st.text(max_size=30))
def test_any_text_is_expanded_to_what_a_dump_gives_back(text: str) -> None:
    assert expand_folder(escape_folder(text)) in (text, f"./{text}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(HOSTILE | st.text(max_size=30))
def test_any_results_load_the_same_twice_or_are_refused_in_a_line(
    config: Config, tmp_path: Path, results: str
) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(json.dumps(config | {"results": results}), encoding="utf-8")
    try:
        found = load(file)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        str(error).encode()
        return
    check_folder(found.results)
    file.write_text(json.dumps(found.model_dump(mode="json")), encoding="utf-8")
    assert Path(load(file).results) == Path(found.results)

"""A bad config is refused before the first job, in one line that names the file, the key and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common.errors import UserError
from cotdistill.runs.experiment import load, parse

Config = dict[str, Any]
Complaint = Callable[[Any], str]

TINY = {"name": "tiny", "scratch": {}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            {"sedes": [1]}, ["unknown key 'sedes'", "did you mean 'seeds'?", "known: experiment,"], id="top"
        ),
        pytest.param(
            {"training": {"learning_rat": 1}},
            ["unknown key 'training.learning_rat'", "did you mean 'learning_rate'?"],
            id="nested",
        ),
        pytest.param(
            {"datasets": [{"name": "demo", "training": {"step": 5}}]},
            ["unknown key 'datasets[0].training.step'", "did you mean 'steps'?"],
            id="override",
        ),
        pytest.param(
            {"students": [{"name": "s", "scratch": {"d_modell": 8}}]},
            ["unknown key 'students[0].scratch.d_modell'", "did you mean 'd_model'?"],
            id="student",
        ),
        pytest.param(
            {"exclude": [{"fractions": [0.5]}]},
            ["unknown key 'exclude[0].fractions'", "did you mean 'fraction'?"],
            id="filter",
        ),
        pytest.param(
            {"methods": [{"name": "mi", "betta": 1}]},
            ["methods[0]", "unknown key 'betta'", "did you mean 'beta'?"],
            id="method setting",
        ),
    ],
)
def test_unknown_key_names_the_near_one(
    config: Config, complaint: Complaint, change: Config, expected: list[str]
) -> None:
    message = complaint(config | change)
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("change", "key", "expected", "found"),
    [
        ({"seeds": ["1"]}, "seeds[0]", "integer", "found '1'"),
        ({"seeds": 3}, "seeds", "list", "found 3"),
        ({"seeds": [-1]}, "seeds[0]", "greater than or equal to 0", "found -1"),
        ({"experiment": 7}, "experiment", "string", "found 7"),
        ({"experiment": "a/b"}, "experiment", "a name is of letters", "found 'a/b'"),
        ({"labels": ["golden"]}, "labels[0]", "'gold' or 'teacher'", "found 'golden'"),
        ({"training": {"steps": "many"}}, "training.steps", "integer", "found 'many'"),
        ({"training": {"steps": 0}}, "training.steps", "greater than or equal to 1", "found 0"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate", "number", "found 'fast'"),
        ({"training": {"learning_rate": True}}, "training.learning_rate", "number", "found True"),
        ({"training": {"weight_decay": float("inf")}}, "training.weight_decay", "finite number", "found inf"),
        ({"training": {"device": "gpu"}}, "training.device", "'auto', 'cpu' or 'cuda'", "found 'gpu'"),
        ({"evaluation": {"rationales": "yes"}}, "evaluation.rationales", "boolean", "found 'yes'"),
        ({"evaluation": {"predictability": 9}}, "evaluation.predictability", "least 256", "found 9"),
        ({"methods": [{"name": "mi", "beta": "much"}]}, "beta", "number", "found 'much'"),
        ({"fractions": [0.5, 0]}, "fractions[1]", "greater than 0", "found 0"),
        ({"fractions": [1.01]}, "fractions[0]", "less than or equal to 1", "found 1.01"),
        ({"exclude": [{"fraction": [2]}]}, "exclude[0].fraction[0]", "less than or equal to 1", "found 2"),
    ],
)
def test_wrong_value_names_key_expectation_and_finding(
    config: Config, complaint: Complaint, change: Config, key: str, expected: str, found: str
) -> None:
    message = complaint(config | change)
    assert f"'{key}'" in message
    assert expected in message
    assert found in message


def test_fp16_is_refused_with_the_reason(config: Config, complaint: Complaint) -> None:
    message = complaint(config | {"training": {"precision": "fp16"}})
    assert "'training.precision'" in message
    assert "T5 diverges in fp16" in message
    assert "bf16 or fp32" in message


def test_missing_key_is_named(config: Config, complaint: Complaint) -> None:
    del config["methods"]
    assert complaint(config) == ": 'methods' is missing"


def test_further_faults_are_counted(config: Config, complaint: Complaint) -> None:
    assert complaint(config | {"seeds": ["x"], "labels": ["y"]}).endswith("(and 1 more)")


@pytest.mark.parametrize("axis", ["datasets", "students", "methods", "labels", "fractions", "seeds"])
def test_empty_axis(config: Config, complaint: Complaint, axis: str) -> None:
    message = complaint(config | {axis: []})
    assert f"'{axis}'" in message
    assert "at least 1 item" in message


@pytest.mark.parametrize(
    "change",
    [
        {"include": []},
        {"include": [{"seed": [9]}]},
        {"exclude": [{}]},
        {"include": [{"method": ["mi"]}], "exclude": [{"seed": [0, 1]}]},
    ],
)
def test_filters_that_leave_nothing(config: Config, complaint: Complaint, change: Config) -> None:
    message = complaint(config | change)
    assert "the grid is empty" in message
    assert "'include' and 'exclude'" in message


@pytest.mark.parametrize(
    ("change", "where", "unknown"),
    [
        ({"datasets": ["demmo"]}, "datasets[0]", "unknown dataset 'demmo'; did you mean 'demo'?"),
        ({"datasets": [{"name": "x", "adapter": "demmo"}]}, "datasets[0]", "unknown dataset 'demmo'"),
        ({"methods": ["dss", "finetun"]}, "methods[1]", "unknown method 'finetun'; did you mean 'finetune'?"),
        ({"include": [{"dataset": ["dem"]}]}, "include[0]", "unknown dataset 'dem'; did you mean 'demo'?"),
        ({"exclude": [{}, {"method": ["ds"]}]}, "exclude[1]", "unknown method 'ds'; did you mean 'dss'?"),
        ({"exclude": [{"student": ["tin"]}]}, "exclude[0]", "unknown student 'tin'; did you mean 'tiny'?"),
        ({"baseline": "dsss"}, "baseline", "unknown method 'dsss'; did you mean 'dss'?"),
    ],
)
def test_unknown_name(config: Config, complaint: Complaint, change: Config, where: str, unknown: str) -> None:
    message = complaint(config | change)
    assert f"'{where}'" in message
    assert unknown in message
    assert "(known: " in message


@pytest.mark.parametrize(
    ("change", "twice"),
    [
        ({"datasets": ["demo", {"name": "demo"}]}, "'datasets': 'demo'"),
        ({"students": [TINY, TINY]}, "'students': 'tiny'"),
        ({"students": ["google/t5-v1_1-small", "/models/t5-v1_1-small"]}, "'students': 't5-v1_1-small'"),
        ({"methods": ["mi", {"name": "mi", "beta": 1}]}, "'methods': 'mi'"),
        ({"labels": ["gold", "gold"]}, "'labels': 'gold'"),
        ({"fractions": [1, 0.5, 1.0]}, "'fractions': '1.0'"),
        ({"seeds": [3, 1, 3]}, "'seeds': '3'"),
    ],
)
def test_entry_twice(config: Config, complaint: Complaint, change: Config, twice: str) -> None:
    assert f"{twice} stands twice" in complaint(config | change)


@pytest.mark.parametrize("student", [{"name": "s"}, {"name": "s", "pretrained": "t5-small", "scratch": {}}])
def test_student_is_either_pretrained_or_from_scratch(
    config: Config, complaint: Complaint, student: Config
) -> None:
    message = complaint(config | {"students": [student]})
    assert "'students[0]'" in message
    assert "exactly one of 'pretrained' and 'scratch'" in message


@pytest.mark.parametrize(
    ("change", "baseline", "left"),
    [
        ({"exclude": [{"method": ["dss"]}]}, "dss", "finetune, mi"),
        ({"include": [{"method": ["mi"]}]}, "dss", "mi"),
        ({"baseline": "mi", "exclude": [{"method": ["mi"], "seed": [0, 1]}]}, "mi", "dss, finetune"),
    ],
)
def test_a_baseline_that_filters_drop_is_refused(
    config: Config, complaint: Complaint, change: Config, baseline: str, left: str
) -> None:
    words = f"'include' and 'exclude' leave no cell of method '{baseline}' (left: {left})"
    assert complaint(config | change) == f": 'baseline': {words}"


def test_a_baseline_that_some_cells_lack_is_taken(config: Config) -> None:
    assert parse(config | {"exclude": [{"method": ["dss"], "seed": [1]}]}, "test").baseline == "dss"


@pytest.mark.parametrize(
    "student", [{**TINY, "revision": "main"}, {"pretrained": "/models/t5", "revision": "main"}]
)
def test_a_revision_is_for_a_student_from_the_hub(
    config: Config, complaint: Complaint, student: Config
) -> None:
    message = complaint(config | {"students": [student]})
    assert "'students[0]': 'revision' is for a student from the hub" in message


def test_a_revision_of_a_folder_is_refused(
    config: Config, complaint: Complaint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    student = {"pretrained": "models/t5", "revision": "main"}
    parse(config | {"students": [student]}, "test")
    Path("models/t5").mkdir(parents=True)
    message = complaint(config | {"students": [student]})
    assert message == ": 'students[0].revision': models/t5 is a local folder, which has none"


def test_null_replaces_only_what_may_be_null(config: Config, complaint: Complaint) -> None:
    entry = {"name": "demo", "training": {"patience": None, "steps": None}}
    message = complaint(config | {"datasets": [entry]})
    assert "'datasets[0].training.steps': input should be a valid integer, found None" in message


def test_custom_dataset_needs_a_path(config: Config, complaint: Complaint) -> None:
    assert "'datasets[0].path'" in complaint(config | {"datasets": ["custom"]})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: no such config file"):
        load(tmp_path / "none.yaml")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("experiment: x\nseeds: [1, 2\nlabels: [gold]\n", ":3: not valid YAML ("),
        ("experiment: x\n\tseeds: [1]\n", ":2: not valid YAML ("),
        ("seeds: [1]\nexperiment: x\nseeds: [2]\n", ":3: not valid YAML (key 'seeds' stands twice)"),
        ("training:\n  steps: 1\n  steps: 2\n", ":3: not valid YAML (key 'steps' stands twice)"),
        ("experiment: \x00\n", ": not valid YAML (special characters"),
    ],
)
def test_broken_yaml_names_the_line(complaint: Complaint, text: str, expected: str) -> None:
    assert complaint(text).startswith(expected)


@pytest.mark.parametrize(("text", "found"), [("- a\n- b\n", "list"), ("", "NoneType"), ("words\n", "str")])
def test_top_level_must_be_a_mapping(complaint: Complaint, text: str, found: str) -> None:
    assert complaint(text) == f": expected keys and values, found {found}"


def test_parse_names_its_source(config: Config) -> None:
    with pytest.raises(UserError, match="^--config: 'seeds"):
        parse(config | {"seeds": ["x"]}, "--config")

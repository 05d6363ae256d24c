"""Names become folders and words in tables: what cannot be both is refused, on every axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cotdistill.orchestration.plan import describe
from cotdistill.runs.experiment import describe_uncompared, parse

Config = dict[str, Any]
Complaint = Callable[[Any], str]

AXES: dict[str, Callable[[str], Config]] = {
    "experiment": lambda name: {"experiment": name},
    "datasets[0].name": lambda name: {"datasets": [{"name": name, "adapter": "demo"}]},
    "students[0].name": lambda name: {"students": [{"name": name, "scratch": {}}]},
    "methods[0].name": lambda name: {"methods": [{"name": name, "method": "dss"}], "baseline": name},
}
REFUSED = {
    **dict.fromkeys(
        ["nan", "NaN", "NA", "na", "null", "NULL", "None", "nil", "inf", "Infinity", "true", "False"],
        "not read as it was written",
    ),
    "x" * 101: "100 characters at most, this has 101",
    "x" * 5000: "100 characters at most",
    **dict.fromkeys(
        ["", "a b", "../up", "a/b", ".hidden", "-option", "{v2}", "a\nb", "a\n", "é", "$(x)", "a;b", "*"],
        "a name is of letters, digits",
    ),
}


@pytest.mark.parametrize("key", AXES)
@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=[repr(name)[:20] for name in REFUSED])
def test_names_that_are_refused(
    config: Config, complaint: Complaint, key: str, name: str, reason: str
) -> None:
    message = complaint(config | AXES[key](name))
    assert key in message and reason in message and len(message) < 300


@pytest.mark.parametrize("key", AXES)
def test_names_that_are_taken(config: Config, key: str) -> None:
    for name in ("x" * 100, "2024", "1e3", "yes", "a.b_c-d", "nanny", "CON", "none-of-these"):
        parse(config | AXES[key](name), "test")


@pytest.mark.parametrize(
    "name", ["mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "MLflow.DB", "mlflow.lock", "mlartifacts",
             "mlflow.db.lock", "mlflow.e.follow.lock", "mlruns"],
)  # fmt: skip
def test_an_experiment_beside_the_store(config: Config, complaint: Complaint, name: str) -> None:
    assert "files of MLflow have this name" in complaint(config | {"experiment": name})


@pytest.mark.parametrize("name", ["teacher", "Teacher"])
def test_a_method_called_teacher(config: Config, complaint: Complaint, name: str) -> None:
    message = complaint(config | {"methods": [{"name": name, "method": "dss"}]})
    assert "in tables of samples 'teacher' is the teacher" in message


def test_names_that_differ_in_case_alone(config: Config, complaint: Complaint) -> None:
    two = {
        "datasets": [{"name": name, "adapter": "demo"} for name in ("one", "ONE")],
        "students": [{"name": name, "scratch": {}} for name in ("s", "S")],
        "methods": ["dss", {"name": "DSS", "method": "dss"}],
    }
    for axis, entries in two.items():
        assert f"'{axis}': '" in complaint(config | {axis: entries})
        assert "differ in case alone" in complaint(config | {axis: entries})


def test_a_baseline_that_is_not_there(config: Config, complaint: Complaint) -> None:
    assert "'baseline': unknown method 'ds'; did you mean 'dss'?" in complaint(config | {"baseline": "ds"})
    assert "unknown method 'a\\nb'" in complaint(config | {"baseline": "a\nb"})
    nowhere = {"exclude": [{"method": ["dss"]}], "baseline": "dss"}
    assert "leave no cell of method 'dss'" in complaint(config | nowhere)


def test_a_baseline_that_is_excluded_for_a_part(config: Config) -> None:
    two = {"datasets": ["demo", {"name": "more", "adapter": "demo"}], "labels": ["gold", "teacher"]}
    assert describe_uncompared(parse(config | two, "test")) == ""
    part = two | {"exclude": [{"method": ["dss"], "dataset": ["more"], "labels": ["teacher"]}]}
    experiment = parse(config | part, "test")
    said = "the baseline 'dss' has no run for more/tiny/teacher/1: the methods there are compared with"
    assert describe_uncompared(experiment).startswith(said)
    assert describe(experiment).splitlines()[-1].startswith(f"warning: {said}")
    seeds = two | {"exclude": [{"method": ["dss"], "seed": [0]}]}
    assert describe_uncompared(parse(config | seeds, "test")) == "", "tables tell of seeds"


def test_long_values_are_cut_and_line_ends_escaped(config: Config, complaint: Complaint) -> None:
    for changes in (
        {"x" * 5000: 1}, {"a\nb": 1}, {"labels": ["y" * 5000]}, {"labels": ["a\nb"]},
        {"seeds": ["z\r\n" * 2000]},
        {"datasets": ["w" * 90 + "\u2028"]}, {"methods": [{"name": "a", "method": "m" * 5000}]},
        {"exclude": [{"dataset": ["d\n" * 3000]}]}, {"training": {"steps": [1] * 5000}},
    ):  # fmt: skip
        message = complaint(config | changes)
        assert len(message) < 500 and len(message.splitlines()) == 1

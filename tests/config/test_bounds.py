"""Numbers that no library, file format or machine holds are refused when the config is read, in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.config import bounds
from cotdistill.config.models import Compute, Evaluation, Judge, ScratchStudent, Training
from cotdistill.methods import METHODS
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import expand

Config = dict[str, Any]
Complaint = Callable[[Any], str]

JUDGE = {"url": "http://localhost:8000", "model": "m"}
MODELS = {
    "training": Training, "evaluation": Evaluation, "evaluation.judge": Judge, "scratch": ScratchStudent,
    "compute": Compute,
    **{f"methods.{name}": METHODS.module(name).METHOD.Settings for name in METHODS.names()},
}  # fmt: skip


def list_numbers() -> list[tuple[str, str]]:
    """Every setting that is a number: the part of the config it stands in, and its name."""
    found = []
    for part, model in MODELS.items():
        for name, field in model.model_json_schema()["properties"].items():
            types = {field.get("type"), *(choice.get("type") for choice in field.get("anyOf", []))}
            if types & {"integer", "number"}:
                found.append((part, name))
    return [*found, ("", "seeds"), ("", "fractions")]


def place(config: Config, part: str, name: str, value: Any) -> Config:
    """The config with this number in this place."""
    student: Config = {"name": "tiny", "scratch": {}}
    if part in ("training", "evaluation"):
        return config | {part: {name: value}}
    if part == "evaluation.judge":
        return config | {"evaluation": {"judge": {**JUDGE, name: value}}}
    if part in ("scratch", "compute"):
        return config | {"students": [{**student, part: {name: value}}]}
    if part.startswith("methods."):
        return config | {"methods": [{"name": part.removeprefix("methods."), name: value}]}
    return config | {name: [value]}


@pytest.mark.parametrize("value", [2**130, 10**400, 1e308, -1, -5e-324, math.inf, math.nan, "1e999"])
def test_every_number_has_bounds(config: Config, value: Any) -> None:
    for part, name in list_numbers():
        with pytest.raises(UserError) as caught:
            parse(place(config, part, name, value), "test")
        message = str(caught.value)
        assert name in message and "\n" not in message and len(message) < 400


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("", "seeds", 2**63), ("compute", "threads", 10**9), ("compute", "threads", 2**40),
        ("scratch", "d_model", 10**9), ("scratch", "d_model", 2**62), ("scratch", "vocabulary", 10**12),
        ("evaluation", "max_new_tokens", 10**9), ("scratch", "dropout", 0.9999999),
        ("scratch", "layers", 10**6), ("evaluation", "bins", 10**9), ("training", "steps", 10**9),
        ("training", "gpus", 10**9), ("compute", "mem_mb", 10**9), ("training", "batch_size", 10**9),
        ("scratch", "heads", 10**9), ("scratch", "d_ff", 10**9), ("compute", "runtime", 10**9),
        ("evaluation", "predictability", 10**9), ("evaluation", "batch_size", 10**9),
        ("training", "accumulation", 10**9), ("training", "log_every", 10**9),
        ("training", "max_target_tokens", 10**9), ("evaluation.judge", "retries", 2000),
        ("evaluation.judge", "timeout_s", 1e12), ("training", "learning_rate", 5e-324),
        ("training", "learning_rate", -0.0), ("training", "clip_norm", 1e-310),
        ("training", "checkpoint_minutes", 1e300), ("methods.mi", "beta", 1e39),
    ],
)  # fmt: skip
def test_a_number_out_of_bounds_is_told_with_the_bound(
    config: Config, complaint: Complaint, part: str, name: str, value: Any
) -> None:
    message = complaint(place(config, part, name, value))
    assert name in message and f"found {value!r}" in message
    assert "less than or equal to " in message or "greater than or equal to " in message
    assert "00000000000000" not in message, "a bound is not written out with all its zeros"


@settings(deadline=None, max_examples=150)
@given(
    where=st.sampled_from(list_numbers()),
    value=st.integers() | st.integers(0, 2**70) | st.floats(),
)
@example(where=("", "seeds"), value=10**5000)
@example(where=("training", "learning_rate"), value=10**5000)
def test_any_number_loads_or_is_refused_in_one_line(where: tuple[str, str], value: float) -> None:
    small = {"experiment": "small", "datasets": ["demo"], "students": [{"name": "tiny", "scratch": {}}],
             "methods": ["dss"], "seeds": [0]}  # fmt: skip
    try:
        experiment = parse(place(small, *where, value), "test")
    except UserError as error:
        assert where[1] in str(error) and "\n" not in str(error) and len(str(error)) < 400
    else:
        assert all(run.hash and run.id for run in expand(experiment))


def test_the_largest_seed_is_taken(config: Config) -> None:
    assert expand(parse(config | {"seeds": [bounds.SEED]}, "test"))[0].seed == 2**63 - 1


def test_a_number_of_thousands_of_digits_is_one_line(complaint: Complaint) -> None:
    assert "a number of 5000 characters" in complaint("seeds: [" + "9" * 5000 + "]\n")


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": list(range(bounds.RUNS))},
        {"seeds": list(range(1000)), "fractions": [1 / n for n in range(1, 100)]},
        {"methods": [{"name": f"m{n}", "method": "dss"} for n in range(300)], "seeds": list(range(100)),
         "include": [{"seed": [0]}]},
    ],
)  # fmt: skip
def test_a_grid_of_too_many_runs_is_refused_before_it_is_made(
    config: Config, complaint: Complaint, change: Config
) -> None:
    assert f"expected at most {bounds.RUNS:,}: cut it into several experiments" in complaint(config | change)


def test_a_long_axis_is_checked_for_equal_values_at_once(config: Config, complaint: Complaint) -> None:
    assert "'seeds': '7' stands twice" in complaint(config | {"seeds": [*range(20_000), 7]})

"""Short forms, resolved settings, and what a run's id and hash depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.config.models import CellFilter, Experiment, Training
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import Run, expand, find

Config = dict[str, Any]

SCRATCH = {"name": "tiny", "scratch": {}}


def runs(values: Config) -> list[Run]:
    return expand(parse(values, "test"))


def only(values: Config) -> Run:
    """The one run of a grid with a single cell."""
    (run,) = runs(values)
    return run


@pytest.fixture
def cell(config: Config) -> Config:
    """A config whose grid is one run of `mi`."""
    return config | {"methods": ["mi"], "seeds": [1]}


# --- short forms


def test_short_forms_equal_long_forms(config: Config) -> None:
    short = config | {"students": ["google/t5-v1_1-small"], "fractions": [1]}
    long = short | {
        "datasets": [{"name": "demo", "adapter": "demo"}],
        "students": [{"name": "t5-v1_1-small", "pretrained": "google/t5-v1_1-small"}],
        "methods": [{"name": name, "method": name} for name in config["methods"]],
        "fractions": [1.0],
    }
    assert parse(short, "short") == parse(long, "long")
    assert [run.hash for run in runs(short)] == [run.hash for run in runs(long)]


def test_a_local_folder_gives_the_student_its_last_part(cell: Config) -> None:
    run = only(cell | {"students": ["/models/t5-base/"]})
    assert (run.student.name, run.student.pretrained) == ("t5-base", "/models/t5-base/")


def test_a_number_may_come_as_text(cell: Config) -> None:
    # YAML 1.1 reads 5e-5 as text
    assert only(cell | {"training": {"learning_rate": "5e-5"}}).training.learning_rate == 5e-5


def test_one_method_twice_under_two_names(config: Config) -> None:
    methods = [{"name": "mi-0", "method": "mi", "beta": 0}, {"name": "mi-1", "method": "mi", "beta": 1}]
    found = {run.method.name: run.config["method_settings"] for run in runs(config | {"methods": methods})}
    assert {name: (s["method"], s["beta"]) for name, s in found.items()} == {
        "mi-0": ("mi", 0.0),
        "mi-1": ("mi", 1.0),
    }


# --- overrides


def test_student_overrides_dataset_overrides_experiment(cell: Config) -> None:
    run = only(
        cell
        | {
            "training": {"steps": 1, "batch_size": 1, "eval_every": 1},
            "datasets": [{"name": "demo", "training": {"steps": 2, "batch_size": 2}}],
            "students": [{"name": "tiny", "scratch": {}, "training": {"steps": 3}}],
        }
    )
    training = run.training
    assert (training.steps, training.batch_size, training.eval_every) == (3, 2, 1)
    assert training.learning_rate == Training().learning_rate


@pytest.mark.parametrize("owner", ["datasets", "students"])
@pytest.mark.parametrize("key", Training.model_fields)
def test_every_training_setting_can_be_replaced_for_one_dataset_or_student(
    cell: Config, owner: str, key: str
) -> None:
    entry = {"datasets": {"name": "demo"}, "students": {"name": "tiny", "scratch": {}}}[owner]
    unhashed = {"log_every": 3, "checkpoint_every": 3, "checkpoint_minutes": None, "keep": "last"}
    value = {**TRAINING, **unhashed}[key]
    values = cell | {owner: [entry | {"training": {key: value}}]}
    run = only(values)
    assert getattr(run.training, key) == value != getattr(Training(), key)
    assert run.training.model_dump() == {**Training().model_dump(), key: value}
    assert frozen(values)[0].training == run.training


def test_a_default_that_is_spelled_out_replaces_what_stands_before_it(cell: Config) -> None:
    run = only(
        cell
        | {
            "training": {"patience": 2},
            "datasets": [{"name": "demo", "training": {"patience": None, "steps": 7}}],
            "students": [{"name": "tiny", "scratch": {}, "training": {"steps": 10_000}}],
        }
    )
    assert (run.training.patience, run.training.steps) == (None, 10_000)


# --- the frozen grid


def frozen(values: Config) -> list[Run]:
    """The runs of the same grid, written as `grid.json` is and read back."""
    text = json.dumps(parse(values, "test").model_dump(mode="json"))
    return expand(parse(json.loads(text), "grid.json"))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"training": {"patience": 3, "checkpoint_minutes": None, "learning_rate": "5e-5"}},
        {"datasets": [{"name": "demo", "training": {"patience": None, "steps": 10_000, "gpus": 2}}]},
        {"students": ["google/t5-v1_1-small", SCRATCH | {"training": {"engine": "packed"}}]},
        {"students": [{"pretrained": "google/t5-v1_1-small", "revision": "v1"}]},
        {"methods": ["mi", {"name": "two", "method": "mi"}], "exclude": [{"method": ["two"]}]},
        {"fractions": [1, 0.25], "include": [{"fraction": [0.25]}], "evaluation": {"judge": {
            "url": "http://localhost:8000/v1", "model": "m"}}},
    ],
)  # fmt: skip
def test_the_frozen_grid_is_the_grid(cell: Config, change: Config) -> None:
    values = cell | change
    before, after = parse(values, "test"), frozen(values)
    assert after[0].experiment.model_dump() == before.model_dump()
    assert [(run.id, run.hash, run.training) for run in after] == [
        (run.id, run.hash, run.training) for run in expand(before)
    ]


# --- the baseline


@pytest.mark.parametrize(
    ("methods", "baseline"),
    [(["finetune", "dss", "mi"], "dss"), (["mi", "finetune"], "mi"),
     ([{"name": "plain", "method": "dss"}, "mi"], "plain")],
)  # fmt: skip
def test_the_baseline_is_dss_or_the_first_method(cell: Config, methods: list[Any], baseline: str) -> None:
    assert parse(cell | {"methods": methods}, "test").baseline == baseline


# --- ids and folders


def test_run_ids_follow_the_axes(config: Config) -> None:
    axes = {"methods": ["dss"], "labels": ["gold", "teacher"], "fractions": [0.125, 1.0], "seeds": [7]}
    assert [run.id for run in runs(config | axes)] == [
        "demo/tiny/dss/gold/0.125/7",
        "demo/tiny/dss/gold/1/7",
        "demo/tiny/dss/teacher/0.125/7",
        "demo/tiny/dss/teacher/1/7",
    ]


def test_near_fractions_have_folders_of_their_own(config: Config) -> None:
    ids = {run.id for run in runs(config | {"methods": ["dss"], "fractions": [0.12345678, 0.12345679]})}
    assert len(ids) == 4


def test_folders(cell: Config) -> None:
    run = only(cell | {"results": "elsewhere"})
    assert run.folder == Path("elsewhere/small/runs/demo/tiny/mi/gold/1/1")
    assert run.prepared == Path("elsewhere/small/prepared/demo/tiny")


def test_find(config: Config) -> None:
    experiment = parse(config, "test")
    assert find(experiment, "demo/tiny/mi/gold/1/0").method.name == "mi"
    with pytest.raises(UserError, match="unknown run 'demo/tiny/mi/gold/1/9'; did you mean 'demo/tiny/mi/"):
        find(experiment, "demo/tiny/mi/gold/1/9")


# --- hashes


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [2]},
        {"labels": ["teacher"]},
        {"fractions": [0.5]},
        {"datasets": [{"name": "demo", "path": "elsewhere"}]},
        {"datasets": [{"name": "demo", "adapter": "cqa"}]},
        {"datasets": [{"name": "demo", "training": {"steps": 9}}]},
        {"students": [{"name": "tiny", "scratch": {"d_model": 32}}]},
        {"students": [{"name": "tiny", "scratch": {"vocabulary": 64}}]},
        {"students": [{"name": "tiny", "pretrained": "google/t5-v1_1-small"}]},
        {"students": [{"name": "tiny", "pretrained": "google/t5-v1_1-small", "revision": "v1"}]},
        {"students": [SCRATCH | {"compute": {"threads": 2}}]},
        {"students": [SCRATCH | {"training": {"learning_rate": 1}}]},
        {"methods": [{"name": "mi", "beta": 0.2}]},
        {"methods": [{"name": "mi", "alpha": 0.4}]},
        {"methods": [{"name": "mi", "variant": "paper"}]},
        {"methods": [{"name": "mi", "method": "dss"}]},
        {"evaluation": {"max_new_tokens": 8}},
    ],
)
def test_hash_changes_with_what_the_numbers_depend_on(cell: Config, change: Config) -> None:
    assert only(cell | change).hash != only(cell).hash


TRAINING: Config = {
    "steps": 11, "batch_size": 3, "accumulation": 3, "learning_rate": 0.5, "warmup_steps": 3,
    "weight_decay": 0.1, "clip_norm": 2.0, "precision": "bf16", "max_input_tokens": 33,
    "max_target_tokens": 33, "eval_every": 3, "patience": 3, "device": "cpu", "gpus": 2,
    "engine": "reference",
}  # fmt: skip


@pytest.mark.parametrize("key", TRAINING)
def test_hash_changes_with_training(cell: Config, key: str) -> None:
    assert only(cell | {"training": {key: TRAINING[key]}}).hash != only(cell).hash


@pytest.mark.parametrize(
    "change",
    [
        {"results": "elsewhere"},
        {"data_root": "elsewhere"},
        {"experiment": "other"},
        {"baseline": "mi"},
        {"tracking": {"uri": "http://localhost:5000"}},
        # generated after training, and kept under a key of their own; the state's rhythm changes no number
        {"evaluation": {"rationales": True}},
        {"training": {"checkpoint_every": 7}},
        {"training": {"keep": "none"}},
        {"students": [SCRATCH | {"compute": {"mem_mb": 9000, "runtime": 5}}]},
        # a default spelled out is the same setting
        {"training": {"steps": 10_000}},
        {"methods": [{"name": "mi", "method": "mi", "beta": 0.1}]},
        {"students": [{"name": "tiny", "scratch": {}, "training": {"steps": 10_000}}]},
    ],
)
def test_hash_keeps_with_what_the_numbers_do_not_depend_on(cell: Config, change: Config) -> None:
    assert only(cell | change).hash == only(cell).hash


def test_hash_keeps_when_the_grid_around_the_run_changes(cell: Config) -> None:
    wide = cell | {
        "datasets": ["cqa", "demo"],
        "students": [{"name": "other", "scratch": {"d_model": 8}}, SCRATCH],
        "methods": ["dss", "mi"],
        "labels": ["gold", "teacher"],
        "fractions": [0.5, 1.0],
        "seeds": [0, 1, 2],
        "exclude": [{"method": ["dss"], "seed": [2]}],
    }
    run = only(cell)
    assert find(parse(wide, "wide"), run.id).hash == run.hash
    assert len({run.hash for run in runs(wide)}) == len(runs(wide))


# --- expansion

AXES: dict[str, list[Any]] = {
    "dataset": ["cqa", "demo", "svamp"],
    "student": ["a", "b"],
    "method": ["dss", "finetune", "mi"],
    "labels": ["gold", "teacher"],
    "fraction": [0.25, 0.5, 1.0],
    "seed": [0, 1, 2],
}


def some(values: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


grids = st.fixed_dictionaries({axis: some(values) for axis, values in AXES.items()})
filters = st.lists(
    st.fixed_dictionaries({}, optional={axis: some(values) for axis, values in AXES.items()}), max_size=2
)


def experiment_of(
    grid: dict[str, list[Any]], include: list[Config] | None, exclude: list[Config]
) -> Experiment:
    return Experiment.model_validate(
        {
            "experiment": "x",
            "datasets": grid["dataset"],
            "students": [{"name": name, "scratch": {}} for name in grid["student"]],
            "methods": grid["method"],
            "labels": grid["labels"],
            "fractions": grid["fraction"],
            "seeds": grid["seed"],
            "include": include,
            "exclude": exclude,
        }
    )


@given(grid=grids, exclude=filters)
def test_expansion_is_the_product_minus_what_is_excluded(
    grid: dict[str, list[Any]], exclude: list[Config]
) -> None:
    full = expand(experiment_of(grid, None, []))
    size = 1
    for values in grid.values():
        size *= len(values)
    assert len(full) == len({run.id for run in full}) == size

    kept = expand(experiment_of(grid, None, exclude))
    dropped = expand(experiment_of(grid, exclude, []))
    assert len(kept) + len(dropped) == size
    assert {run.id for run in kept}.isdisjoint(run.id for run in dropped)
    # one filter drops the product of the values it shares with each axis
    if len(exclude) == 1:
        block = 1
        for axis, values in grid.items():
            block *= len(set(values) & set(exclude[0].get(axis, values)))
        assert len(dropped) == block


def test_a_filter_knows_every_axis() -> None:
    assert set(CellFilter.model_fields) == set(AXES)

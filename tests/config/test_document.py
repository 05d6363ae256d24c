"""The generated defaults and schema agree with the models, and every shipped config with both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from cotdistill.common.errors import UserError
from cotdistill.config.models import Evaluation, Experiment, ScratchStudent, Training
from cotdistill.methods import METHODS
from cotdistill.orchestration import schema as document
from cotdistill.runs.experiment import load, parse

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(ROOT.glob("config/*.yaml")) + sorted(ROOT.glob("config.yaml"))

Config = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    value = document.build_json_schema()
    jsonschema.Draft202012Validator.check_schema(value)
    return jsonschema.Draft202012Validator(value)


def test_generated_files_are_up_to_date() -> None:
    stale = [path.name for path in document.drift(ROOT)]
    assert not stale, "run `cotdistill schema`"


def test_drift_is_seen_and_write_mends_it(tmp_path: Path) -> None:
    files = document.drift(tmp_path)
    assert len(files) == 2
    assert document.write(tmp_path) == files
    assert document.drift(tmp_path) == []
    files[0].write_text(files[0].read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    assert document.drift(tmp_path) == files[:1]


def test_defaults_are_a_legal_config_with_every_default() -> None:
    values = yaml.safe_load(document.comment_defaults())
    parse(values, "defaults")
    assert set(values) == set(Experiment.model_fields)
    for key, model in (("training", Training), ("evaluation", Evaluation)):
        assert values[key] == model().model_dump()
    assert values["students"][0]["scratch"] == ScratchStudent().model_dump()
    methods = {entry["name"]: entry for entry in values["methods"]}
    assert set(methods) == set(METHODS.names())
    for name, entry in methods.items():
        settings = METHODS.module(name).METHOD.Settings().model_dump()
        assert entry == {"name": name, "method": name, **settings}


def test_defaults_explain_every_setting() -> None:
    text = " ".join(line.lstrip(" #") for line in document.comment_defaults().splitlines())
    models: list[type[BaseModel]] = [Experiment, Training, Evaluation, ScratchStudent]
    models += [METHODS.module(name).METHOD.Settings for name in METHODS.names()]
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
            assert field.description in text


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_config(path: Path, schema: jsonschema.Draft202012Validator) -> None:
    text = path.read_text(encoding="utf-8")
    marker, _, target = text.splitlines()[0].partition("$schema=")
    assert marker == "# yaml-language-server: "
    assert (path.parent / target).resolve() == ROOT / document.SCHEMA
    load(path)
    schema.validate(yaml.safe_load(text))


def test_overrides_have_the_keys_of_training_and_no_defaults() -> None:
    models = document.build_json_schema()["$defs"]
    training, overrides = models["Training"]["properties"], models["TrainingOverrides"]["properties"]
    bare = {key: {name: part for name, part in node.items() if name != "default"}
            for key, node in training.items()}  # fmt: skip
    assert overrides == bare and set(bare) == set(Training.model_fields)


def test_schema_describes_every_setting() -> None:
    properties = document.build_json_schema()["properties"]
    for name, field in Experiment.model_fields.items():
        assert properties[name]["description"] == field.description


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"students": ["google/t5-v1_1-small", {"pretrained": "google/t5-v1_1-base"}]},
        {"students": [{"name": "a", "pretrained": None, "scratch": {"dropout": 0}}]},
        {"methods": ["mi", {"name": "strong", "method": "mi", "beta": 1}, {"name": "dss", "alpha": "5e-1"}]},
        {"datasets": [{"name": "mine", "adapter": "custom", "path": "here", "training": {"steps": 5}}]},
        {"fractions": [1, 0.5], "training": {"learning_rate": "5e-5", "weight_decay": 0, "patience": None}},
        {"students": [{"pretrained": "google/t5-v1_1-small", "revision": "refs/pr/1"}]},
        {"datasets": [{"name": "demo", "training": {"checkpoint_minutes": None, "engine": "packed"}}]},
        {"baseline": "mi"},
        {"include": [{"method": ["mi", "dss"]}], "exclude": [{"fraction": [1], "seed": [0]}]},
    ],
)
def test_schema_and_models_accept(
    config: Config, schema: jsonschema.Draft202012Validator, change: Config
) -> None:
    values = config | change
    parse(values, "test")
    schema.validate(values)


@pytest.mark.parametrize(
    "change",
    [
        {"sedes": [1]},
        {"seeds": []},
        {"seeds": [-1]},
        {"fractions": [0]},
        {"labels": ["silver"]},
        {"training": {"precision": "fp16"}},
        {"training": {"learning_rate": "fast"}},
        {"training": {"learning_rate": True}},
        {"students": [{"name": "s"}]},
        {"students": [{"scratch": {}}]},
        {"students": [{"name": "s", "pretrained": "t5", "scratch": {}}]},
        {"students": [{"name": "s", "scratch": {}, "revision": "main"}]},
        {"students": [{"name": "s", "scratch": {}, "training": {"steps": None}}]},
        {"students": [{"name": "s", "scratch": {}, "training": {"precision": "fp16"}}]},
        {"training": {"engine": "quick"}},
        {"methods": [{"name": "mi", "gamma": 1}]},
        {"methods": [{"name": "x", "method": "dss", "beta": 1}]},
        {"methods": [{"name": "x", "method": "mi", "beta": -1}]},
    ],
)
def test_schema_and_models_refuse(
    config: Config, schema: jsonschema.Draft202012Validator, change: Config
) -> None:
    values = config | change
    with pytest.raises(UserError):
        parse(values, "test")
    assert not schema.is_valid(values)

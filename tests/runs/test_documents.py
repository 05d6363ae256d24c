"""The documents of a run's folder: what is written is read, and anything else is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json, seal, write_json, write_jsonl
from cotdistill.runs.documents import (
    SCHEMA_VERSION,
    Answer,
    Document,
    Environment,
    Metrics,
    RunConfig,
    Score,
    StrictScore,
    TeacherScore,
    Training,
    read_answers,
    read_history,
    write_answers,
)

REMEDY = "remove the folder to train again"

score = {
    "step": 12, "test_accuracy": 0.7, "test_correct": 7, "test_n": 10, "test_groups": 9,
    "mean_confidence": 0.625,
}  # fmt: skip
DOCUMENTS: dict[str, Document] = {
    "config": RunConfig(run="demo/a", hash="ab12", engine="packed", config={"seed": 1, "rate": 1e-05}),
    "environment": Environment(
        run="demo/a", hash="ab12", versions={"torch": "2.13.0"}, hardware={"cores": 2, "gpu": None},
        device="cpu", engine="packed", git_commit=None, data_checksum="cd34",
        split_ids={"test": "ef56"}, student={}, wall_s=1.5,
        peak_memory_mb=300.25, started_at="2026-01-01T00:00:00", finished_at="2026-01-01T00:01:00",
    ),
    "training": Training(
        run="demo/a", hash="ab12", origin="ef56", steps=12, best_step=8, best_valid_accuracy=0.75,
        files={"model/model.safetensors": "0f" * 32},
    ),
    "metrics": Metrics(
        run="demo/a", hash="ab12", strict=StrictScore(**score, valid_accuracy=0.75), published=Score(**score),
        measures={"calibration": {"sequence": {"n": 10, "ece_width": None, "reliability": [{"low": 0.1}]}}},
        teacher={"test": TeacherScore(accuracy=0.5, correct=5, n=10, unparsed=1)},
        sizes={"train": 20, "valid": 10, "test": 10}, evaluation_wall_s=0.25, files={"history.jsonl": "1e"},
    ),
}  # fmt: skip
documents = pytest.mark.parametrize("name", DOCUMENTS)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Seal changed fields of a document, without those that are None, and return how it is refused."""

    def refuse(name: str, sealed: bool = True, **changes: Any) -> str:
        fields = {**DOCUMENTS[name].model_dump(), **changes}
        fields = {key: value for key, value in fields.items() if value is not ABSENT}
        path = tmp_path / f"{name}.json"
        write_json(path, seal(fields) if sealed else fields)
        message = refuse_to_read(type(DOCUMENTS[name]), path)
        assert message is not None
        return message

    return refuse


ABSENT = object()


def refuse_to_read(kind: type[Document], path: Path) -> str | None:
    """The one line with which a document is refused, which names it and the remedy; None where it is read."""
    try:
        kind.read(path, REMEDY)
    except UserError as error:
        message = str(error)
        assert message.startswith(str(path)) and message.endswith(f"; {REMEDY}") and "\n" not in message
        return message
    return None


@documents
def test_what_is_written_is_what_is_read(name: str, tmp_path: Path):
    document, path = DOCUMENTS[name], tmp_path / "document.json"
    document.write(path)
    assert type(document).read(path, REMEDY) == document
    assert read_json(path)["schema_version"] == SCHEMA_VERSION


@documents
def test_any_flipped_bit_is_refused_or_changes_nothing(name: str, tmp_path: Path):
    document, path = DOCUMENTS[name], tmp_path / "document.json"
    document.write(path)
    whole = path.read_bytes()
    refusals = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        if refuse_to_read(type(document), path) is None:  # such as 1E-05 for 1e-05
            assert type(document).read(path, REMEDY) == document
        else:
            refusals += 1
    assert refusals > 0.95 * len(whole)


@documents
def test_a_changed_value_is_refused_by_the_seal(name: str, tmp_path: Path):
    path = tmp_path / "document.json"
    DOCUMENTS[name].write(path)
    write_json(path, {**read_json(path), "run": "demo/b"})
    assert "corrupt" in str(refuse_to_read(type(DOCUMENTS[name]), path))


@documents
@pytest.mark.parametrize("cut", [0, 0.5, 0.99])
def test_a_truncated_document_is_refused(name: str, cut: float, tmp_path: Path):
    path = tmp_path / "document.json"
    DOCUMENTS[name].write(path)
    text = path.read_text()
    path.write_text(text[: int(cut * len(text.rstrip()))])
    assert "not valid JSON" in str(refuse_to_read(type(DOCUMENTS[name]), path))


def test_a_document_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"training\.json: no such file"):
        Training.read(tmp_path / "training.json", REMEDY)


@documents
@pytest.mark.parametrize("version", [1, SCHEMA_VERSION - 1, SCHEMA_VERSION + 1, "two", None])
@pytest.mark.parametrize("sealed", [True, False])
def test_another_layout_is_refused_with_both_numbers(name: str, version: Any, sealed: bool, refused: Any):
    message = refused(name, sealed, schema_version=version)
    assert f"(layout {version!r}, this one reads {SCHEMA_VERSION})" in message


@documents
@pytest.mark.parametrize("sealed", [True, False])
def test_a_layout_without_number_counts_as_the_first(name: str, sealed: bool, refused: Any):
    message = refused(name, sealed, schema_version=ABSENT)
    assert f"(layout 1, this one reads {SCHEMA_VERSION})" in message


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config", "engine", 3), ("config", "config", ["seed"]), ("environment", "wall_s", "1.5"),
        ("environment", "git_commit", 12), ("training", "steps", "12"), ("training", "steps", 12.5),
        ("training", "best_step", -1), ("training", "best_valid_accuracy", 75), ("training", "files", None),
        ("training", "hash", ABSENT), ("metrics", "sizes", {"train": "20"}), ("metrics", "strict", score),
        ("metrics", "published", {**score, "test_n": None}), ("metrics", "evaluation_wall_s", True),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_by_its_key(name: str, key: str, value: Any, refused: Any):
    assert f"'{key}" in refused(name, **{key: value})


def test_a_value_inside_a_value_is_refused_by_its_path(refused: Any):
    assert "'published.test_n'" in refused("metrics", published={**score, "test_n": "10"})
    assert "'teacher.test.accuracy'" in refused(
        "metrics", teacher={"test": {"accuracy": 2.0, "correct": 5, "n": 10, "unparsed": 1}}
    )


@pytest.mark.parametrize(
    ("name", "key", "near"),
    [
        ("training", "best_stp", "best_step"), ("config", "engin", "engine"),
        ("metrics", "measure", "measures"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_near_one(name: str, key: str, near: str, refused: Any):
    message = refused(name, **{key: 1})
    assert f"unknown key '{key}'; did you mean '{near}'?" in message


texts = st.text(max_size=30)
finite = st.floats(allow_nan=False, allow_infinity=False)
answers = st.builds(
    Answer, id=texts, input=texts, gold=texts, prediction=texts, correct=st.booleans(), confidence=finite,
    options=st.lists(texts, max_size=4), option_probabilities=st.lists(finite, max_size=4),
    rationale=st.none() | texts, teacher_rationale=st.none() | texts,
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(answers, max_size=5))
def test_answers_are_read_as_they_were_written(tmp_path_factory: Any, made: list[Answer]):
    path: Path = tmp_path_factory.getbasetemp() / "answers.jsonl"
    write_answers(path, made)
    assert read_answers(path) == made
    assert len([line for line in path.read_text(encoding="utf-8").split("\n") if line]) == len(made)


ANSWER = Answer("a", "what?", "red", "blue", False, 0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"correct": 1}, "'correct'"), ({"confidence": "0.5"}, "'confidence'"), ({"gold": None}, "'gold'"),
        ({"confidence": None}, "'confidence'"), ({"options": ["red", 3]}, "'options[1]'"),
        ({"id": ABSENT}, "'id'"),
        ({"predicton": "x"}, "unknown key 'predicton'; did you mean 'prediction'?"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_refused_by_file_entry_and_key(change: dict[str, Any], said: str, tmp_path: Path):
    path = tmp_path / "predictions.jsonl"
    good = {key: value for key, value in asdict(ANSWER).items() if value is not None}
    bad = {key: value for key, value in {**good, **change}.items() if value is not ABSENT}
    write_jsonl(path, [good, good, bad, bad])
    with pytest.raises(UserError) as refusal:
        read_answers(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: entry 3: ") and said in message and "\n" not in message


def test_an_answer_that_is_not_a_number_cannot_be_written_as_one(tmp_path: Path):
    path = tmp_path / "predictions.jsonl"
    write_jsonl(path, [{**asdict(ANSWER), "confidence": float("nan")}])
    with pytest.raises(UserError, match=r"entry 1: 'confidence'"):
        read_answers(path)


def test_lines_of_a_history_are_read_by_name(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    write_jsonl(path, [
        {"step": 3, "epoch": 0.5, "loss/total": 1.25, "gradient_norm": float("inf")},
        {"step": 4, "valid/n": 9},
    ])  # fmt: skip
    first, second = read_history(path)
    assert (first.step, first.epoch) == (3, 0.5)
    assert first.values == {"loss/total": 1.25, "gradient_norm": None}
    assert (second.step, second.epoch, second.values) == (4, None, {"valid/n": 9})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"loss/total": 1.0}, "'step' is missing"), ({"step": -1}, "'step'"), ({"step": 1.5}, "'step'"),
        ({"step": 2, "loss/total": "low"}, "'loss/total'"), ({"step": 2, "epoch": "half"}, "'epoch'"),
    ],
)  # fmt: skip
def test_a_wrong_line_of_a_history_is_refused_by_file_entry_and_key(
    line: dict[str, Any], said: str, tmp_path: Path
):
    path = tmp_path / "history.jsonl"
    write_jsonl(path, [{"step": 1, "loss/total": 2.0}, line])
    with pytest.raises(UserError) as refusal:
        read_history(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: entry 2: ") and said in message and "\n" not in message


def test_a_line_that_is_no_object_is_refused_by_its_line(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n[2]\n")
    with pytest.raises(UserError, match=r"history\.jsonl:2: expected a JSON object, found list"):
        read_history(path)

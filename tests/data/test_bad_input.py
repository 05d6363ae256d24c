"""Faulty data: one line that names the file and the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common.errors import UserError
from cotdistill.data import load


def _edit(path: Path, line: int, **changes: Any) -> None:
    """Replace columns in the given line (from 1); a column set to None is removed."""
    lines = path.read_text().split("\n")
    row = json.loads(lines[line - 1]) | changes
    lines[line - 1] = json.dumps({key: value for key, value in row.items() if value is not None})
    path.write_text("\n".join(lines))


def _refused(name: str, root: Path, *wanted: str, path: Path | None = None) -> None:
    with pytest.raises(UserError) as caught:
        load(name, root, path=path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    for text in wanted:
        assert text in message, message


@pytest.mark.parametrize(
    ("name", "changes", "wanted"),
    [
        ("cqa", {"question": None}, "column 'question' is missing"),
        ("cqa", {"question": 3}, "column 'question': expected text, found int"),
        ("cqa", {"question": "\ud800"}, "half a surrogate pair"),
        ("cqa", {"answer": " "}, "column 'answer' is empty"),
        ("cqa", {"answer": "violet"}, "expected one of the choices, found 'violet'"),
        ("cqa", {"choices": ["red"]}, "expected a list of 5 texts, found a list of 1"),
        ("cqa", {"choices": "red"}, "expected a list of 5 texts, found str"),
        ("svamp", {"input": None}, "column 'input' is missing"),
        ("svamp", {"label": ""}, "column 'label' is empty"),
        ("svamp", {"label": "x + 2"}, "expected plain arithmetic, found 'x + 2'"),
        ("svamp", {"label": 9}, "column 'label': expected text, found int"),
        ("esnli", {"hypothesis": None}, "column 'hypothesis' is missing"),
        ("esnli", {"label": -1}, "found -1"),
        ("esnli", {"label": True}, "found True"),
        ("anli1", {"label": "neutral"}, "expected one of 0 (entailment), 1 (neutral), 2 (contradiction)"),
        ("anli1", {"label": 1.0}, "found 1.0"),
    ],
)
def test_faulty_row(name: str, changes: dict[str, Any], wanted: str, made_root: Path) -> None:
    file = made_root / name / f"{name}_train.json"
    _edit(file, 3, **changes)
    _refused(name, made_root, f"{file}:3: ", wanted)


def test_missing_column_suggests_the_near_one(made_root: Path) -> None:
    file = made_root / "cqa/cqa_train.json"
    _edit(file, 2, question=None, questions="x")
    _refused("cqa", made_root, f"{file}:2: ", "did you mean 'questions'?")


def test_line_numbers_count_blank_lines(made_root: Path) -> None:
    file = made_root / "svamp/svamp_train.json"
    _edit(file, 2, label="")
    file.write_text("\n\n" + file.read_text())
    _refused("svamp", made_root, f"{file}:4: ")


def test_truncated_rows(made_root: Path) -> None:
    file = made_root / "svamp/svamp_test.json"
    file.write_text(file.read_text()[:-10])
    _refused("svamp", made_root, f"{file}:4: not valid JSON", "truncated")


def test_truncated_outputs(made_root: Path) -> None:
    file = made_root / "svamp/llm/train_CoT_3.json"
    file.write_text(file.read_text()[:-10])
    _refused("svamp", made_root, f"{file}:1: not valid JSON", "truncated")


def test_no_rows(made_root: Path) -> None:
    file = made_root / "svamp/svamp_test.json"
    file.write_text("\n")
    _refused("svamp", made_root, f"{file}: no rows")


def test_missing_places(made_root: Path) -> None:
    _refused("svamp", made_root / "elsewhere", f"{made_root / 'elsewhere' / 'svamp'}: no such folder")
    (made_root / "svamp/svamp_test.json").unlink()
    _refused("svamp", made_root, f"{made_root / 'svamp/svamp_test.json'}: no such file")
    (made_root / "esnli/llm").rename(made_root / "esnli/teacher")
    _refused("esnli", made_root, f"{made_root / 'esnli/llm'}: no such folder")


def test_gap_in_the_batches(made_root: Path) -> None:
    (made_root / "cqa/llm/train_CoT_1.json").unlink()
    _refused("cqa", made_root, f"{made_root / 'cqa/llm/train_CoT_1.json'}: no such file", "found: 0, 2, 3")
    for file in (made_root / "cqa/llm").glob("train_CoT_*"):
        file.unlink()
    _refused("cqa", made_root, f"{made_root / 'cqa/llm/train_CoT_0.json'}: no such file", "found: none")


def test_too_few_and_too_many_outputs(made_root: Path) -> None:
    folder = made_root / "cqa/llm"
    (folder / "train_CoT_12.json").write_text('["one more"]')
    _refused("cqa", made_root, f"{folder}: teacher outputs: 25 for 24 rows")
    (folder / "train_CoT_12.json").unlink()
    (folder / "train_CoT_11.json").unlink()
    _refused("cqa", made_root, f"{folder}: teacher outputs: 22 for 24 rows")


def test_batches_are_joined_by_number(made_root: Path) -> None:
    # 12 batches: as text, number 10 would stand before number 2
    rows = [row for split in ("train", "valid") for row in load("cqa", made_root)[split]]
    assert len(rows) == 24
    for row in rows:
        assert row["rationale"] == f"Number {row['id'].rsplit('-', 1)[1]} it is."


@pytest.mark.parametrize(("text", "wanted"), [
    ('{"a": 1}', "expected a JSON array of texts, found dict"),
    ('["good", null]', "output 1 (from 0): expected text, found NoneType"),
    ('["good", "\\ud800"]', "output 1 (from 0): expected text, found half a surrogate pair"),
])  # fmt: skip
def test_faulty_outputs(text: str, wanted: str, made_root: Path) -> None:
    file = made_root / "cqa/llm/test_CoT_1.json"
    file.write_text(text)
    _refused("cqa", made_root, f"{file}: ", wanted)


def test_asdiv_row_without_an_answer(made_root: Path) -> None:
    file = made_root / "asdiv/asdiv_train.json"
    _edit(file, 1, Formula="x+2=y", Answer="some pears")
    _refused("asdiv", made_root, f"{file}:1: ", "'x+2=y' and 'some pears'")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"rationale": None}, "column 'rationale' is missing"),
        ({"input": ""}, "column 'input' is empty"),
        ({"label": ""}, "column 'label' is empty"),
        ({"label": ["yes"]}, "column 'label': expected text, found list"),
        ({"options": ["no"]}, "column 'label': expected one of the options, found 'yes'"),
        ({"options": "yes"}, "column 'options': expected a list of texts, found str"),
        ({"teacher_label": 1}, "column 'teacher_label': expected text, found int"),
        ({"id": "custom-train-0"}, "'custom-train-0' stands twice"),
        ({"id": 7}, "column 'id': expected text, found int"),
    ],
)
def test_custom(changes: dict[str, Any], wanted: str, made_root: Path) -> None:
    folder = made_root.parent / "custom"
    _edit(folder / "train.jsonl", 2, **changes)
    _refused("custom", made_root, f"{folder / 'train.jsonl'}:2: ", wanted, path=folder)


def test_custom_folder(made_root: Path, lines: Callable[[Path, list[Any]], None]) -> None:
    folder = made_root.parent / "custom"
    _refused("custom", made_root, "dataset 'custom': 'path' is missing")
    _refused("custom", made_root, f"{folder / 'x'}: no such folder", path=folder / "x")
    row = {"input": "q", "label": "a", "rationale": "r", "id": "mine", "options": ["a", "b"]}
    lines(folder / "valid.jsonl", [row])
    splits = load("custom", path=folder)
    rest = {"teacher_label": "", "group": ""}
    assert (len(splits["train"]), splits["valid"].to_list()) == (24, [row | rest])
    (folder / "valid.jsonl").unlink()
    lines(folder / "train.jsonl", [row])
    _refused("custom", made_root, "cannot cut a validation split from 1 training rows", path=folder)
    (folder / "test.jsonl").unlink()
    _refused("custom", made_root, f"{folder / 'test.jsonl'}: no such file", path=folder)

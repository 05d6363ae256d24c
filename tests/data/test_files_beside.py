"""Files and columns that are nearly those that are read; texts that are too long."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cotdistill.common.errors import UserError
from cotdistill.data import find_unread, load

ROW = {"input": "q", "label": "yes", "rationale": "r"}


@pytest.fixture
def own(tmp_path: Path, lines: Callable[[Path, list[Any]], None]) -> Path:
    """A custom dataset of train (20 rows) and test (4)."""
    for split, count in {"train": 20, "test": 4}.items():
        lines(tmp_path / f"own/{split}.jsonl", [ROW | {"input": f"q {number}"} for number in range(count)])
    return tmp_path / "own"


def refuse(folder: Path, name: str = "custom", **arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(name, **(arguments or {"path": folder}))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


# --- files of one's own data


@pytest.mark.parametrize("name", ["valid", "validation", "val", "dev"])
def test_a_validation_file_is_read_under_any_usual_name(name: str, own: Path) -> None:
    (own / f"{name}.jsonl").write_text(json.dumps(ROW | {"input": "mine"}) + "\n")
    splits = load("custom", path=own)
    assert (len(splits["train"]), splits["valid"]["input"][:]) == (20, ["mine"])
    assert splits["valid"]["id"][0] == "custom-valid-0" and find_unread("custom", path=own) == []


@pytest.mark.parametrize("names", [("valid", "dev"), ("validation", "val"), ("valid", "validation", "dev")])
def test_two_validation_files_are_refused(names: tuple[str, ...], own: Path) -> None:
    for name in names:
        (own / f"{name}.jsonl").write_text(json.dumps(ROW) + "\n")
    line = refuse(own)
    assert all(f"{name}.jsonl" in line for name in names) and "expected one file of the split 'valid'" in line


@pytest.mark.parametrize(
    "name",
    ["Train.jsonl", "train.json", "train.jsonl.gz", "train (1).jsonl", "train.csv", "TRAIN.JSONL",
     "training.jsonl",
     "train-00000-of-00002.parquet", "train copy.jsonl", "train.jsonl.zip", "train_1.jsonl"],
)  # fmt: skip
def test_a_file_that_is_nearly_the_training_file(name: str, own: Path) -> None:
    (own / "train.jsonl").rename(own / "kept")
    (own / name).write_bytes(b"?")
    assert refuse(own) == f"{own / 'train.jsonl'}: no such file; not read: {name}; expected 'train.jsonl'"
    # beside the file itself it is only told: it may be what that was made from
    (own / "kept").rename(own / "train.jsonl")
    load("custom", path=own)
    (line,) = find_unread("custom", path=own)
    assert line == f"{own}: not read as split 'train': {name} (only train.jsonl is)"


@pytest.mark.parametrize(
    "name",
    ["Valid.jsonl", "validation.json", "valid.csv", "dev.jsonl.gz", "val (2).jsonl", "VALIDATION.jsonl",
     "dev.tsv"],
)  # fmt: skip
def test_a_file_that_is_nearly_a_validation_file(name: str, own: Path) -> None:
    (own / name).write_bytes(b"?")
    line = refuse(own)
    assert line.startswith(f"{own}: {name} is not read; expected 'valid.jsonl'")


@pytest.mark.parametrize("name", ["test.json", "Test.jsonl", "test.jsonl.xz", "testing.jsonl"])
def test_a_file_that_is_nearly_the_test_file(name: str, own: Path) -> None:
    (own / "test.jsonl").rename(own / name)
    assert refuse(own).endswith(f"test.jsonl: no such file; not read: {name}; expected 'test.jsonl'")


def test_a_link_that_leads_nowhere_is_no_missing_validation_file(own: Path) -> None:
    os.symlink(own / "moved.jsonl", own / "valid.jsonl")
    assert refuse(own) == f"{own / 'valid.jsonl'}: no such file"


def test_a_folder_that_cannot_be_listed(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_list(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cotdistill.data.found.os", SimpleNamespace(listdir=refuse_to_list))
    assert refuse(own) == f"cannot read {own}: Permission denied"


def test_other_files_are_nobodys_business(own: Path) -> None:
    for name in ("README.md", "train.jsonl.bak", "notes.txt", "latest.json", "train_log.txt", "contest.csv",
                 "retrain.jsonl", ".train.jsonl.swp", "devices.json"):  # fmt: skip
        (own / name).write_text("?")
    assert len(load("custom", path=own)["valid"]) == 2 and find_unread("custom", path=own) == []


# --- files of the release's layout


@pytest.mark.parametrize(
    ("name", "said"),
    [("cqa_valid.json", "its rows are cut from train"), ("cqa_dev.json", "its rows are cut from train"),
     ("CQA_train.json", "only cqa_train.json is"), ("cqa_test.jsonl", "only cqa_test.json is"),
     ("cqa_train (1).json", "only cqa_train.json is"), ("llm/train_CoT_00.json", "only train_CoT_0.json"),
     ("llm/train_cot_1.json", "only train_CoT_0.json"), ("llm/test_CoT_0 (1).json", "only test_CoT_0.json"),
     ("llm/valid_CoT_0.json", "its rows are cut from train")],
)  # fmt: skip
def test_stray_files_of_the_release(name: str, said: str, made_root: Path) -> None:
    assert find_unread("cqa", made_root) == []
    path = made_root / "cqa" / name
    path.write_text("[]")
    load("cqa", made_root)
    (line,) = find_unread("cqa", made_root)
    assert line.startswith(f"{path.parent}: not read as split '") and path.name in line and said in line


def test_missing_files_of_the_release_name_those_like_them(made_root: Path) -> None:
    folder = made_root / "esnli"
    (folder / "esnli_valid.json").rename(folder / "esnli_dev.json")
    line = refuse(folder, "esnli", root=made_root)
    assert line == (
        f"{folder / 'esnli_valid.json'}: no such file; not read: esnli_dev.json; expected 'esnli_valid.json'"
    )
    (made_root / "cqa/llm/train_CoT_3.json").rename(made_root / "cqa/llm/train_CoT_03.json")
    assert refuse(folder, "cqa", root=made_root).endswith("; not read: train_CoT_03.json")


@pytest.mark.parametrize("name", ["cqa", "svamp", "anli1", "esnli"])
def test_nothing_of_the_published_files_is_unread(name: str, dss_root: Path) -> None:
    assert find_unread(name, dss_root) == []


# --- columns


@pytest.mark.parametrize(
    ("column", "meant"),
    [("teacher", "teacher_label"), ("Teacher_Label", "teacher_label"), ("teacherlabel", "teacher_label"),
     ("teacher_labels", "teacher_label"), ("teacher-label", "teacher_label"), ("option", "options"),
     ("choices", "options"), ("Options", "options"), ("ID", "id")],
)  # fmt: skip
def test_a_column_that_is_nearly_an_optional_one(column: str, meant: str, own: Path) -> None:
    rows = [ROW, ROW, ROW | {column: "x"}]
    (own / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refuse(own)
    assert line.startswith(f"{own / 'train.jsonl'}:3: unknown column '{column}'; did you mean '{meant}'? ")


@pytest.mark.parametrize(
    "column",
    ["explanation", "Label", "source", "idx", "teacher", "Rationale", "teacher_name", "captions", "answer"],
)
def test_other_columns_are_told_once_a_file(column: str, own: Path) -> None:
    rows = [ROW | {"teacher_label": "yes", column: number} for number in range(30)]
    (own / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    load("custom", path=own)
    assert find_unread("custom", path=own) == [
        f"{own / 'train.jsonl'}: columns that are not read: '{column}'"
    ]


def test_many_columns_are_one_short_line(own: Path) -> None:
    row = ROW | {f"feature {number}" * 9: number for number in range(1000)}
    (own / "test.jsonl").write_text(json.dumps(row) + "\n")
    (line,) = find_unread("custom", path=own)
    assert "and 992 more" in line and len(line) < 700


# --- long texts


@pytest.mark.parametrize("column", ["input", "label", "rationale", "teacher_label", "id", "options"])
def test_a_text_that_is_too_long(column: str, own: Path) -> None:
    long = "x" * 100_001
    value: Any = [long, "yes"] if column == "options" else long
    (own / "test.jsonl").write_text(f"{json.dumps(ROW)}\n\n{json.dumps(ROW | {column: value})}\n")
    line = refuse(own)
    assert line == (
        f"{own / 'test.jsonl'}:3: column '{column}': a text of 100001 characters; expected at most 100000"
    )


def test_ten_megabytes_in_one_line(own: Path) -> None:
    (own / "train.jsonl").write_text(json.dumps(ROW | {"input": "word " * 2_000_000}) + "\n")
    assert "train.jsonl:1: column 'input': a text of 10000000 characters" in refuse(own)


def test_a_teacher_output_that_is_too_long(made_root: Path) -> None:
    file = made_root / "cqa/llm/test_CoT_1.json"
    file.write_text(json.dumps(["good", "x" * 100_001]))
    line = refuse(made_root, "cqa", root=made_root)
    assert line.startswith(f"{file}: output 1 (from 0): a text of 100001 characters")


@pytest.mark.parametrize("value", [1, True, 1.5, None, ["yes"], {"a": 1}])
def test_labels_that_are_no_text_name_their_type(value: Any, own: Path) -> None:
    (own / "train.jsonl").write_text(json.dumps(ROW | {"label": value}) + "\n")
    assert f"column 'label': expected text, found {type(value).__name__}" in refuse(own)

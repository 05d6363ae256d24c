"""Rows that can never be learned, or never be answered rightly: refused, or told and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.data import adapter, load
from cotdistill.data.adapters.custom import ADAPTER as CUSTOM
from cotdistill.data.answers import evaluate_equation, is_right
from cotdistill.data.checks import Demands, check_splits
from cotdistill.jobs.prepare import prepare
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import expand

Rows = list[dict[str, Any]]


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"input": f"q {number}", "label": "yes", "rationale": "r", "teacher_label": "yes", **changes}


@pytest.fixture
def write(tmp_path: Path, lines: Callable[[Path, Rows], None]) -> Callable[..., Path]:
    """Write splits of a custom dataset; one that is left out has eight good rows."""

    def put(good: dict[str, Any] | None = None, **splits: Rows) -> Path:
        for split in ("train", "valid", "test"):
            own = splits.get(split, [row(number, **(good or {})) for number in range(8)])
            lines(tmp_path / "own" / f"{split}.jsonl", own)
        return tmp_path / "own"

    return put


def check(folder: Path, answer: Any = "text", **demands: Any) -> list[str]:
    return check_splits("own", load("custom", path=folder), Demands(answer, **demands))


def refuse(folder: Path, *arguments: Any, **demands: Any) -> str:
    with pytest.raises(UserError) as caught:
        check(folder, *arguments, **demands)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


def prepare_it(folder: Path, results: Path, answer: str = "text", **changes: Any) -> None:
    """Prepare the dataset as the command does, with a scratch student."""
    config = {
        "experiment": "tiny", "results": str(results), "methods": ["dss"], "seeds": [0],
        "datasets": [{"name": "own", "adapter": "custom", "path": str(folder), "answer": answer}],
        "students": [{"name": "mini", "scratch": {"d_model": 16, "vocabulary": 64}}], **changes,
    }  # fmt: skip
    run = expand(parse(config, "tests"))[0]
    prepare(run.experiment, run.dataset, run.student, run.prepared)


# --- equations


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,200", 1200), ("$18", 18), ("\u22125", -5), ("5 \u00d7 4", 20), ("1,000 + 5", 1005), ("$5 + 3", 8),
     ("8 \u00f7 2", 4), ("1,234,567.5", 1234567.5), ("($1,000 - $0.5) * 2", 1999), ("-$5", -5),
     ("12,000/4", 3000), ("$.5", 0.5), ("2\u22122\u00d73", -4), ("\u2212\u22125", 5)],
)  # fmt: skip
def test_equations_as_people_write_them(text: str, value: float) -> None:
    assert evaluate_equation(text) == value
    assert is_right("equation", text, str(value)) and is_right("equation", str(value), text)


@pytest.mark.parametrize(
    "text",
    ["1,2", "1,20", "1,2000", "0,123", "1,000,00", "1000,000", "1,,000", ",100", "1, 000", "100,", "1.5,000",
     "12,34,567", "50%", "x = 5 + 3", "(5+3) = 8", "5 + 3 = 8", "18 dollars", "$", "$ 18", "$$5", "$-5", "5$",
     "5 x 4", "\u00b15", "1,000 1", "(1,20)", "1\u00a0000", "\u20135"],
)  # fmt: skip
def test_gold_equations_without_a_value(text: str, write: Callable[..., Path]) -> None:
    assert evaluate_equation(text) is None
    folder = write({"label": "5 + 3"}, test=[row(0, label="8"), row(1, label=text), row(2, label="2")])
    line = refuse(folder, "equation")
    assert line.startswith("dataset 'own', test: 1 of 3 gold equations have no value")
    assert "row custom-test-1: " in line and "expected plain arithmetic" in line
    assert check(folder, "text") is not None, "as text it is an answer like any other"


@given(st.integers(0, 10**12), st.sampled_from("+-*"), st.integers(0, 10**9))
def test_commas_between_thousands_change_no_value(left: int, operator: str, right: int) -> None:
    plain, written = f"{left} {operator} {right}", f"{left:,} {operator} {right:,}"
    assert evaluate_equation(written) == evaluate_equation(plain)
    signs = str.maketrans({"-": "\u2212", "*": "\u00d7"})
    assert evaluate_equation(written.translate(signs)) == evaluate_equation(plain)


def test_many_equations_without_a_value_are_counted(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write({"label": "5 + 3"}, train=[row(number, label=f"{number}%") for number in range(9)])
    with pytest.raises(UserError, match=r"9 of 9 gold equations .*'0%'.*'1%'.*'2%' and 6 more"):
        prepare_it(folder, tmp_path / "results", "equation")
    assert not (tmp_path / "results").exists(), "nothing half-made"


# --- the teacher's labels and rationales


def test_teacher_labels_that_are_not_there(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write({"teacher_label": ""})
    with pytest.raises(UserError, match="'own', train: no row has a teacher_label, and 'labels'"):
        prepare_it(folder, tmp_path / "results", labels=["teacher"])
    prepare_it(folder, tmp_path / "results", labels=["gold"])


@pytest.mark.parametrize("empty", ["", "  ", "\u200b", "\n"])
def test_some_teacher_labels_that_are_not_there(empty: str, write: Callable[..., Path]) -> None:
    folder = write(train=[row(number, teacher_label="yes" if number % 2 else empty) for number in range(9)])
    line = refuse(folder, teacher_labels=True)
    assert "train: 5 of 9 rows have no teacher_label: row custom-train-0, custom-train-2" in line
    assert check(folder) == []
    (told,) = check(folder, teacher_labels=True, published=True)
    assert "5 of 9 rows have no teacher_label" in told and "write nothing" in told


def test_only_training_takes_teacher_labels(write: Callable[..., Path]) -> None:
    folder = write(test=[row(number, teacher_label="") for number in range(4)])
    assert check(folder, teacher_labels=True) == []


@pytest.mark.parametrize("empty", ["", " \t", "\u200b\u2060"])
def test_rationales_that_are_not_there(empty: str, write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write({"rationale": empty})
    with pytest.raises(UserError, match="'own', train: no row has a rationale, and students of dss learn"):
        prepare_it(folder, tmp_path / "results")
    prepare_it(folder, tmp_path / "results", methods=["finetune"])
    folder = write(train=[row(number, rationale="r" if number else empty) for number in range(9)])
    (line,) = check(folder, rationales=("dss", "mi"))
    assert "train: 1 of 9 rows have no rationale: row custom-train-0; students of dss, mi" in line
    assert check(folder) == []


def test_a_rationale_within_a_longer_target_is_needed_too(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row has a rationale, and students of single_task"):
        prepare_it(write({"rationale": ""}), tmp_path / "results", methods=["finetune", "single_task"])


@pytest.mark.parametrize(("train", "test"), [(100, 2), (2, 100), (90, 40)])
def test_a_teacher_that_is_right_on_one_split_alone(
    train: int, test: int, write: Callable[..., Path]
) -> None:
    rows = {
        split: [row(number, teacher_label="yes" if number < right else "no") for number in range(100)]
        for split, right in {"train": train, "valid": train, "test": test}.items()
    }
    (line,) = check(write(**rows))
    assert f"right on {train}.0% of train and on {test}.0% of test" in line


@pytest.mark.parametrize(("n", "train", "test"), [(4, 4, 0), (100, 80, 60), (10, 8, 4)])
def test_a_gap_that_chance_explains_is_not_told(
    n: int, train: int, test: int, write: Callable[..., Path]
) -> None:
    rows = {
        split: [row(number, teacher_label="yes" if number < right else "no") for number in range(n)]
        for split, right in {"train": train, "test": test}.items()
    }
    assert check(write(valid=rows["train"], **rows)) == []


def test_missing_teacher_labels_are_no_wrong_ones(write: Callable[..., Path]) -> None:
    assert check(write(test=[row(number, teacher_label="") for number in range(100)])) == []


def test_rows_of_another_split_are_told_where_valid_is_a_file(write: Callable[..., Path]) -> None:
    (line,) = check(
        write(train=[row(n) for n in range(60)], valid=[row(n, teacher_label="no") for n in range(60)])
    )
    assert "100.0% of train and on 0.0% of valid" in line


# --- labels and options


@pytest.mark.parametrize(
    "others", [["Yes"], ["yes "], ["YES", "no"], [" yes"], ["yes\n"], ["y\u200bes", "yES"]]
)
def test_labels_that_differ_by_case_or_space(others: list[str], write: Callable[..., Path]) -> None:
    rows = [row(number, label=(["yes", *others] * 9)[number]) for number in range(9)]
    found = check(write(train=rows))
    assert "labels that differ only by case or white space: 'yes', " in found[0]
    assert len(found) == 1 + any(label != label.strip() for label in others)


def test_open_labels_may_differ_by_case(write: Callable[..., Path]) -> None:
    many = [row(number, label=f"Name {number}", teacher_label="") for number in range(40)]
    assert check(write(train=[*many, row(41, label="name 1", teacher_label="")])) == []
    numbers = [row(number, label=text) for number, text in enumerate(["5", "5 ", " 5"])]
    assert check(write({"label": "5"}, train=numbers), "equation") == []


def test_white_space_around_labels(write: Callable[..., Path]) -> None:
    (line,) = check(write({"label": "yes\n", "teacher_label": ""}))
    assert "labels with white space around them: 'yes\\n'" in line


def test_options_that_differ_by_case(write: Callable[..., Path]) -> None:
    (line,) = check(write({"options": ["yes", "Yes ", "no"]}))
    assert "train: row custom-train-0: options that differ only by case or white space: 'yes', 'Yes '" in line


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(["yes"], "only 'yes'"), (["yes", "yes"], "only 'yes'"), (["yes", " "], "one is empty"),
     (["yes", "\u200b"], "one is empty"), (["yes", ""], "one is empty"),
     (["no", "Yes"], "one of the options"),
     (["yes", *map(str, range(5000))], "5001 of them; expected at most 256")],
)  # fmt: skip
def test_options_that_are_refused(
    options: list[str], wanted: str, write: Callable[..., Path], monkeypatch: Any
) -> None:
    folder = write(test=[row(0), row(1, options=options)])
    with pytest.raises(UserError) as caught:
        load("custom", path=folder)
    assert str(caught.value).startswith(f"{folder / 'test.jsonl'}:2: column '") and wanted in str(
        caught.value
    )
    # whatever adapter it is that read them
    monkeypatch.setattr("cotdistill.data.adapters.custom.find_option_fault", lambda label, options: "")
    line = refuse(folder)
    assert line.startswith("dataset 'own', test: row custom-test-1: column '") and wanted in line


def test_options_that_are_meant_to_work(write: Callable[..., Path], tmp_path: Path) -> None:
    options = [[], ["yes", "no"], ["yes", "no", "no"], ["yes", *("yes" + " no" * n for n in range(1, 256))]]
    folder = write(test=[row(number, options=own) for number, own in enumerate(options)])
    assert check(folder) == []
    prepare_it(folder, tmp_path / "results")


def test_an_adapter_that_lets_blank_and_long_texts_through(
    write: Callable[..., Path], monkeypatch: Any
) -> None:
    folder = write()
    for column, text in (("input", " </s> "), ("label", "\u200b"), ("rationale", "r" * 100_001)):
        made = CUSTOM.read(folder)
        made["test"][3] = {**made["test"][3], column: text}  # type: ignore[typeddict-item]
        monkeypatch.setattr(CUSTOM, "read", lambda root, made=made: made)
        line = refuse(folder)
        monkeypatch.undo()
        assert f"test: {column} " in line and "row custom-test-3" in line


# --- the published data


@pytest.mark.parametrize("name", ["cqa", "svamp", "anli1", "esnli"])
def test_published_rows_pass(name: str, dss_root: Path) -> None:
    splits = load(name, dss_root)
    kind = adapter(name).answer
    told = check_splits(name, splits, Demands(kind, ("dss",), teacher_labels=True, published=True))
    assert all("rows have no " in line for line in told) and told
    assert not any("right on" in line for line in told)
    assert [line for line in check_splits(name, splits, Demands(kind)) if line] == []


def test_the_demo_passes() -> None:
    assert check_splits("demo", load("demo"), Demands("text", ("dss",), teacher_labels=True)) == []

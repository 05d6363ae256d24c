"""What every registered adapter keeps to, and how outputs of the teacher are read."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.data import COLUMNS, SPLITS, adapter, compute_checksum, load, measure_teacher
from cotdistill.data.adapter import Record, ReleaseAdapter
from cotdistill.data.adapters import ADAPTERS
from cotdistill.data.answers import MATCHERS, evaluate_equation

NAMES = ADAPTERS.names()


@pytest.mark.parametrize("name", NAMES)
def test_conforms(name: str, made_root: Path) -> None:
    found = adapter(name)
    assert found.name == name and found.answer in MATCHERS and found.licence and found.source
    splits = load(name, made_root, path=made_root.parent / "custom" if found.needs_path else None)
    assert tuple(splits) == SPLITS
    for rows in splits.values():
        assert tuple(rows.column_names) == COLUMNS and len(rows) > 0
        for row in rows:
            assert row["label"] and (not row["options"] or row["label"] in row["options"])
            assert found.answer != "equation" or evaluate_equation(row["label"]) is not None
    ids = [identity for rows in splits.values() for identity in rows["id"]]
    assert len(set(ids)) == len(ids)
    again = load(name, made_root, path=made_root.parent / "custom" if found.needs_path else None)
    assert compute_checksum(again) == compute_checksum(splits)
    assert all(entry["n"] == len(splits[split]) for split, entry in measure_teacher(splits, "text").items())


@pytest.mark.parametrize("name", NAMES)
@given(output=st.one_of(st.text(), st.text("aQAP():. \n"), st.lists(st.sampled_from(
    ["So the answer is", "The answer is", "Answer: ", "Answer:", "Q:", "Premise:", "(a)", "()", ".", " "]
)).map("".join)))  # fmt: skip
def test_any_output_can_be_parsed(name: str, output: str) -> None:
    rationale, label = adapter(name).parse_teacher(output)
    assert isinstance(rationale, str) and isinstance(label, str)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "piece", ["(", ")", "(a)", "So the answer is", "The answer is", "Answer: ", "Q:", "\n("]
)
def test_long_outputs_take_no_time(name: str, piece: str) -> None:
    start = time.perf_counter()
    adapter(name).parse_teacher("The answer is" + piece * 100_000)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("name", "output", "rationale", "label"),
    [
        ("cqa", "Birds nest. So the answer is (c) a nest.\n\nQ: What", "Birds nest.", "a nest"),
        ("cqa", "Both. So the answer is either (a) pond or (e) lake.", "Both.", "pond or"),
        ("cqa", "None fits. So the answer is none.", "None fits.", ""),
        ("cqa", "It stops here", "", ""),
        ("cqa", "So the answer is (a) x. So the answer is (b) y.", "", ""),
        ("svamp", "Add. The answer is (7 + 2).\n\nQ: next (3)", "Add.", "(7 + 2)"),
        ("svamp", "Add. The answer is (7) and (2).", "Add.", "(7) and (2)"),
        ("svamp", "Add. The answer is 9.", "Add.", ""),
        ("svamp", "Add. The answer is ((4 - 2", "Add.", ""),
        ("svamp", "Add and add", "", ""),
        (
            "esnli",
            "A dog is an animal.\nAnswer: entailment\n\nPremise: x",
            "A dog is an animal.",
            "entailment",
        ),
        ("esnli", "A dog.\nAnswer: neutral\n\nPre", "A dog.", "neutral\n\nPre"),
        ("esnli", "A dog barks", "A dog barks", ""),
        ("anli1", "It says so. So the answer is neutral.\n\nPremise: x", "It says so.", "neutral"),
        ("anli1", "It says so. So the answer is neut", "It says so.", "neu"),
        ("anli1", "It says so", "", ""),
    ],
)
def test_reading_as_published(name: str, output: str, rationale: str, label: str) -> None:
    assert adapter(name).parse_teacher(output) == (rationale, label)


def test_asdiv_extends_svamps_train_after_the_cut(made_root: Path) -> None:
    svamp, asdiv = load("svamp", made_root), load("asdiv", made_root)
    assert asdiv["valid"].to_list() == svamp["valid"].to_list()
    assert asdiv["test"].to_list() == svamp["test"].to_list()
    extra = asdiv["train"].to_list()[len(svamp["train"]) :]
    assert asdiv["train"].to_list()[: len(svamp["train"])] == svamp["train"].to_list()
    assert [row["label"] for row in extra] == [
        "( 7.0 + 2.0 )", "( ( 3.0 + 4.0 ) * 2.0 )", "( 3.0 )", "( 5.0 )", "( 0.5 * 4.0 )",
    ]  # fmt: skip
    assert extra[0]["input"] == "Seven pears and two.\nHow many?"
    assert (extra[0]["rationale"], extra[0]["teacher_label"]) == ("Add.", "(7 + 2)")


@pytest.mark.parametrize(
    ("formula", "answer", "label"),
    [
        ("7+2=9", "9", "( 7.0 + 2.0 )"),
        ("1-3=-2", "-2", "( 1.0 - 3.0 )"),
        ("7/2=3 r 1", "-3.50 m", "( - 3.50 )"),
        ("99999999999999999*2", "big", "( 99999999999999999.0 * 2.0 )"),
        ("x", "1,000", None),
        ("x", "12:30", None),
        ("x", "3/4", None),
        ("", "", None),
        ("1" * 10**5, "1" * 99_998 + ":1", None),
        ("1,000+5=1,005", "1,005 pears", "( 1000.0 + 5.0 )"),
        ("5\u00d74\u22122=18", "18", "( 5.0 * 4.0 - 2.0 )"),
    ],
)
def test_asdiv_labels(formula: str, answer: str, label: str | None, tmp_path: Path) -> None:
    fields = {"Body": "b", "Question": "q", "Formula": formula, "Answer": answer}
    (tmp_path / "rows.json").write_text("{}\n")
    record = Record(tmp_path / "rows.json", 0, fields, 1)
    found = adapter("asdiv")
    assert isinstance(found, ReleaseAdapter)
    if label is None:
        with pytest.raises(UserError, match="rows.json:1: expected arithmetic"):
            found.example(record)
    else:
        assert found.example(record) == ("b\nq", label, [])
        assert evaluate_equation(label) is not None


def test_checksum_sees_every_change(made_root: Path) -> None:
    before = compute_checksum(load("svamp", made_root))
    file = made_root / "svamp/llm/test_CoT_1.json"
    file.write_text(file.read_text().replace("Add", "add", 1))
    assert compute_checksum(load("svamp", made_root)) != before


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="unknown dataset 'svanp'; did you mean 'svamp'"):
        load("svanp")


def test_import_is_light() -> None:
    code = (
        "import sys, cotdistill.data, cotdistill.data.answers, cotdistill.data.release as r\n"
        "heavy = {'datasets', 'torch', 'transformers', 'pandas', 'mlflow', 'snakemake'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr

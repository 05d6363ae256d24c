"""What splits share: against brute force, on the published data, and beside a prepared pair."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.cli import main
from cotdistill.common.errors import UserError
from cotdistill.data import adapter, found, load, overlap, overlap_report
from cotdistill.data.overlap import Inputs, Overlap, Shared, is_near, list_masked_words, measure_overlap
from cotdistill.data.overlap_report import list_overlap_warnings, measure_splits, read_overlap
from cotdistill.data.prepared import Prepared, read_warnings
from cotdistill.data.splits import digest_ids
from cotdistill.jobs.prepare import prepare

ROOT = Path(__file__).parents[2]
PAIRS = [("valid", "train"), ("test", "train"), ("test", "valid")]

# few words, so that sets are near each other often; punctuation, numbers and sentences
WORDS = ["a", "B", "b", "cat", "dog", "has", "3", "1,200", "4.5", "pears", "why", "so", "é", "你好"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).flatmap(
    lambda words: st.lists(
        st.sampled_from([" ", "  ", ", ", ". ", "? ", "\n", "</s>", "。"]),
        min_size=len(words), max_size=len(words),
    ).map(lambda gaps: "".join(word + gap for word, gap in zip(words, gaps, strict=True)))
)  # fmt: skip
SPLIT = st.lists(st.tuples(TEXTS, st.sampled_from(["", "g", "h"])), min_size=1, max_size=12)


def make_inputs(rows: list[tuple[str, str]], split: str) -> Inputs:
    return Inputs(
        [f"{split}-{row}" for row in range(len(rows))],
        [text for text, _ in rows],
        [group for _, group in rows],
    )


def find_words_plainly(text: str) -> list[str]:
    """Words in lower case: letters, or one number, or one character of Chinese."""
    text = re.sub(r"[0-9]+(?:[.,][0-9]+)*", "0", text.replace("</s>", " ").lower())
    return re.findall(r"[a-zé0]+|[\u4e00-\u9fff]", text)


def cut_last_sentence(text: str) -> list[str]:
    parts = [part for part in re.split(r"[.?](?=\s)\s*|</s>|。\s*", text) if part.strip()]
    return find_words_plainly(" ".join(parts[:-1]))


def compare_all(split: list[tuple[str, str]], other: list[tuple[str, str]]) -> dict[str, int | None]:
    """Count by comparing every pair of rows, straight from the definitions."""

    def count(is_like: Callable[[str, str], bool]) -> int:
        return sum(any(is_like(one, two) for two, _ in other) for one, _ in split)

    def near(one: str, two: str) -> bool:
        a, b = set(find_words_plainly(one)), set(find_words_plainly(two))
        return len(a & b) / len(a | b) >= 0.8 - 1e-12

    groups = {group for _, group in other if group}
    named = groups and any(group for _, group in split)
    return {
        "same": count(lambda one, two: one.split() == two.split()),
        "masked": count(lambda one, two: find_words_plainly(one) == find_words_plainly(two)),
        "body": count(lambda one, two: bool(cut_last_sentence(one))
                      and cut_last_sentence(one) == cut_last_sentence(two)),
        "near": count(near),
        "grouped": sum(group in groups for _, group in split) if named else None,
    }  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(SPLIT, SPLIT, SPLIT)
def test_counts_are_those_of_comparing_all_pairs(train: Any, valid: Any, test: Any) -> None:
    rows = {"train": train, "valid": valid, "test": test}
    measured = measure_overlap({split: make_inputs(own, split) for split, own in rows.items()})
    for (split, other), shared in zip(PAIRS, measured.shared, strict=True):
        assert (shared.split, shared.other, shared.rows) == (split, other, len(rows[split]))
        assert shared.counts == compare_all(rows[split], rows[other])
        counts = shared.counts
        assert counts["same"] <= counts["masked"] <= counts["near"]  # type: ignore[operator]
        assert set(shared.examples) == {kind for kind, count in counts.items() if count}
    texts = [" ".join(text.split()) for text, _ in test]
    assert measured.repeated["test"] == len(texts) - len(set(texts))


@given(st.sets(st.integers(0, 60), min_size=1), st.sets(st.integers(0, 60), min_size=1))
def test_similarity_is_exact_at_the_threshold(one: set[int], other: set[int]) -> None:
    from fractions import Fraction

    sets = [frozenset(map(str, each)) for each in (one, other)]
    assert is_near(*sets) == (Fraction(len(one & other), len(one | other)) >= Fraction(4, 5))


@pytest.mark.parametrize("text", ["?!", " ", "🙂 🙂", "</s>"])
def test_an_input_without_words_is_like_itself_alone(text: str) -> None:
    rows = {"train": [("!?", ""), ("5", "")], "valid": [("1", "")], "test": [(text, ""), ("7.5", "")]}
    measured = measure_overlap({split: make_inputs(own, split) for split, own in rows.items()})
    assert measured.shared[1].counts == {"same": 0, "masked": 1, "body": 0, "near": 1, "grouped": None}
    assert list_masked_words(text) == [" ".join(text.split())]


def test_the_published_splits_share_what_was_counted_independently(dss_root: Path) -> None:
    """SVAMP's and ANLI's numbers were first counted by other code, on these definitions."""
    svamp, anli = (measure_splits(load(name, dss_root)) for name in ("svamp", "anli1"))
    in_train = svamp.shared[1]
    assert (in_train.same, in_train.masked, in_train.body, in_train.near) == (0, 0, 113, 153)
    assert anli.shared[2].grouped == 315 and anli.groups["test"] == 846
    apart = measure_splits(load("svamp", dss_root, disjoint=True)).shared[1]
    assert (apart.body, apart.near, apart.grouped) == (0, 51, 0)


@pytest.mark.parametrize("name", ["svamp", "cqa", "anli1", "demo"])
def test_the_table_of_the_documentation_is_what_is_measured(name: str, request: Any) -> None:
    root = None if name == "demo" else request.getfixturevalue("dss_root")
    environment = {**os.environ, **({"COTDISTILL_DATA": str(root)} if root else {})}
    call = [sys.executable, str(ROOT / "benchmarks/overlap.py"), name]
    answer = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in answer.stdout.splitlines() if line not in page] == []


def test_near_duplicates_are_not_counted_where_it_would_take_too_long(monkeypatch: Any) -> None:
    monkeypatch.setattr(overlap, "MOST_LOOKED_AT", 2)
    rows = [(f"the same long template of text around the number of {word}", "") for word in "bcdefgh"]
    measured = measure_overlap({split: make_inputs(rows, split) for split in ("train", "valid", "test")})
    assert measured.shared[1].near is None and measured.shared[1].same == 7
    lines = list_overlap_warnings("mine", measured)
    assert sum("near duplicates in" in line and "were not counted" in line for line in lines) == 2


def shared(other: str, **counts: int) -> Shared:
    values = {"same": 0, "masked": 0, "body": 0, "near": 0, "grouped": None} | counts
    return Shared("test", other, rows=200, **values, examples=dict.fromkeys(values, ("a", "b")))  # type: ignore[arg-type]


@pytest.mark.parametrize(("counts", "told"), [
    ({}, False), ({"near": 9}, False), ({"near": 10}, True), ({"same": 1, "masked": 1, "near": 1}, True),
    ({"masked": 1, "near": 1}, True), ({"grouped": 200}, False), ({"body": 200}, False),
])  # fmt: skip
def test_what_is_worth_a_warning(counts: dict[str, int], told: bool) -> None:
    sizes = {"train": 720, "valid": 80, "test": 200}
    made = Overlap(sizes, dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0), (shared("train", **counts),))
    lines = list_overlap_warnings("mine", made)
    assert len(lines) == told
    assert not told or "200 inputs, of which in train, which students learn from: " in lines[0]


# --- beside a prepared pair


@pytest.fixture
def pair(tiny: Any, tmp_path: Path) -> Callable[..., Path]:
    """Prepares the tiny dataset for a student; gives the folder. Its test rows may be changed."""

    def again(student: str = "small", change: Callable[[list[Any]], list[Any]] = list) -> Path:
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for path in tiny.data.glob("*.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            rows = change(rows) if path.name == "test.jsonl" else rows
            (data / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        scratch = tiny.config(tmp_path)["students"][0]["scratch"]
        run = type(tiny)(data).run(tmp_path / "results", student={"name": student, "scratch": scratch})
        prepare(run.experiment, run.dataset, run.student, run.prepared)
        return run.prepared

    return again


def read(folder: Path) -> Overlap | None:
    return read_overlap(folder, Prepared(folder).manifest["checksum"])


def test_it_is_measured_once_for_all_students_and_no_run_depends_on_it(pair: Any, monkeypatch: Any) -> None:
    folder = pair()
    first, before = read(folder), Prepared(folder).digest
    assert first is not None and first.rows == {"train": 26, "valid": 8, "test": 8}
    with monkeypatch.context() as patch:
        patch.setattr(overlap_report, "measure_overlap", lambda _: pytest.fail("measured again"))
        assert pair() == folder and read(pair("twin")) == first
    whole = (folder / "overlap.json").read_text()
    for harm in ("{", whole.replace('"rows": 8', '"rows": 9'), ""):
        for path in folder.parent.glob("*/overlap.json"):
            path.write_text(harm)
        remedy = r"overlap\.json.*; prepare again, or remove \S+ to collect again$"
        with pytest.raises(UserError, match=remedy):
            read(folder)
        pair()
        assert read(folder) == first and Prepared(folder).digest == before


def test_other_code_measures_anew_and_what_older_code_wrote_is_read(pair: Any, monkeypatch: Any) -> None:
    folder = pair()
    first = read(folder)
    monkeypatch.setattr(overlap_report, "fingerprint", lambda *_: "other code")
    assert read(folder) == first
    empty = {"train": 0, "valid": 0, "test": 0}
    made = Overlap(empty, empty, empty, ())
    monkeypatch.setattr(overlap_report, "measure_overlap", lambda _: made)
    pair()
    assert read(folder) == made


def test_other_rows_are_measured_anew(pair: Any, tiny: Any) -> None:
    assert not [line for line in read_warnings(pair()) if "of which in train" in line]
    train = json.loads((tiny.data / "train.jsonl").read_text().splitlines()[0])
    folder = pair(change=lambda rows: [{**rows[0], "input": train["input"]}, *rows[1:]])
    found = read(folder)
    assert found is not None and (found.shared[1].same, found.shared[1].masked) == (1, 1)
    (line,) = [line for line in read_warnings(folder) if "of which in train" in line]
    assert "dataset 'colours', test: 8 inputs" in line and "1 word for word" in line
    assert f"such as row 'row-34' as '{train['id']}'" in line


def test_the_command_tells_it_a_line_a_split(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    config, run = type(tiny)(tiny.data).config_file(tmp_path)
    command = ["prepare", "--config", str(config), "--dataset", "colours", "--student", "small"]
    assert main(command) in (0, None)
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in out[1:5]] == ["train", "valid", "test", "ids"]
    assert out[1] == "train: 26 inputs, all different"
    ids = Prepared(run.prepared).manifest["split_ids"]
    assert out[4] == f"ids: train {ids['train']}, valid {ids['valid']}, test {ids['test']}"


# --- the same on every machine

GOLDEN_IDS = {
    "cqa": ("5f764f5355036765", "504a8698bf8ea59d", "67480dc54dd3dcd5"),
    "svamp": ("9a9241ec35c53c09", "8f63d2675826fcbc", "3e165e0c89f3549d"),
    "anli1": ("4d1bda75ab833a6e", "cf3890335bb670e4", "58f8153e6cdbfe1a"),
    "esnli": ("cae6ee7e1954dece", "e96bc7f3a9b7f995", "3ef518cf8f41a7eb"),
}
"""digests of the ids of train, valid and test, by dataset"""


@pytest.mark.parametrize("name", GOLDEN_IDS)
def test_ids_of_the_published_splits(name: str, dss_root: Path) -> None:
    found = tuple(digest_ids(load(name, dss_root)).values())
    assert found == GOLDEN_IDS[name]
    row = " | ".join(f"`{digest}`" for digest in found)
    assert f"| `{name}` | {row} |\n" in (ROOT / "docs/data.md").read_text(encoding="utf-8")


def test_ids_tell_order_and_split() -> None:
    from datasets import Dataset, DatasetDict

    def digests(**ids: list[str]) -> dict[str, str]:
        return digest_ids(DatasetDict({name: Dataset.from_dict({"id": own}) for name, own in ids.items()}))

    first = digests(train=["a", "b"], test=["c"])
    assert first == digests(train=["a", "b"], test=["c"])
    others = [["b", "a"], ["ab"], ["a", "b", "c"], ["a"]]
    assert len({first["train"], *(digests(train=ids)["train"] for ids in others)}) == 5


TELL = """
import sys
from dataclasses import asdict
from pathlib import Path
from cotdistill.common.files import digest
from cotdistill.data import compute_checksum, load
from cotdistill.data.overlap_report import measure_splits
from cotdistill.data.splits import digest_ids
for name, disjoint in (("demo", False), ("demo", True), ("cqa", False), ("svamp", False), ("custom", False)):
    splits = load(name, sys.argv[1], path=sys.argv[2] if name == "custom" else None, disjoint=disjoint)
    print(name, digest_ids(splits), compute_checksum(splits), digest(asdict(measure_splits(splits))))
"""


def test_other_hashes_and_locales_read_the_same_splits(made_root: Path, tmp_path: Path) -> None:
    answers = set()
    for seed, locale, encoding in (("0", "C", "0"), ("1", "C.UTF-8", "1"), ("4242", "POSIX", "0")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "LANG": locale,
                       "PYTHONUTF8": encoding, "PYTHONCOERCECLOCALE": "0"}  # fmt: skip
        call = [sys.executable, "-c", TELL, str(made_root), str(tmp_path / "custom")]
        answer = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300)
        assert answer.returncode == 0, answer.stderr
        answers.add(answer.stdout)
    assert len(answers) == 1 and answers.pop().count("\n") == 5


@pytest.mark.parametrize("name", ["cqa", "svamp", "anli1", "esnli"])
def test_folders_may_list_their_files_in_any_order(name: str, made_root: Path, monkeypatch: Any) -> None:
    expected = adapter(name).read(made_root)
    plain = os.listdir
    monkeypatch.setattr(found.os, "listdir", lambda folder: sorted(plain(folder), reverse=True))
    assert adapter(name).read(made_root) == expected

"""Preparing twice does nothing the second time, unless something that it depends on is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common.errors import UserError
from cotdistill.common.files import hash_tree
from cotdistill.data import prepared
from cotdistill.data.prepared import Prepared
from cotdistill.jobs import prepare as job
from cotdistill.jobs.prepare import prepare


@pytest.fixture
def pair(tiny: Any, tmp_path: Path) -> Any:
    """Prepares the tiny pair, with data of its own, into a folder of the test; whether it did anything."""
    data = tmp_path / "data"
    data.mkdir()
    for path in tiny.data.glob("*.jsonl"):
        (data / path.name).write_bytes(path.read_bytes())

    folder = tmp_path / "prepared"

    def again(**more: Any) -> bool:
        run = type(tiny)(data).run(tmp_path / "results", **more)
        return prepare(run.experiment, run.dataset, run.student, folder)

    again.data, again.folder = data, folder  # type: ignore[attr-defined]
    return again


def test_second_time_tokenises_nothing_and_changes_nothing(pair: Any, monkeypatch: Any):
    assert pair()
    before = hash_tree(pair.folder)
    monkeypatch.setattr(prepared, "tokenise", lambda *_: pytest.fail("tokenised again"))
    assert not pair()
    assert hash_tree(pair.folder) == before


def test_other_rows_are_prepared(pair: Any):
    pair()
    file = pair.data / "train.jsonl"
    lines = file.read_text().splitlines()
    first = json.loads(lines[0])
    lines[0] = json.dumps({**first, "rationale": first["rationale"] + " indeed"})
    file.write_text("\n".join(lines) + "\n")
    assert pair() and not pair()


def test_another_student_or_code_is_prepared(pair: Any, monkeypatch: Any):
    pair()
    assert pair(student={"name": "small", "scratch": {"vocabulary": 150}})
    monkeypatch.setattr(job, "compute_preparation_code", lambda dataset, student: "other code")
    assert pair(student={"name": "small", "scratch": {"vocabulary": 150}})


def test_what_a_run_depends_on_is_what_was_prepared_not_the_code(pair: Any, monkeypatch: Any):
    pair()
    before, manifest = Prepared(pair.folder).digest, (pair.folder / "manifest.json").read_bytes()
    monkeypatch.setattr(job, "compute_preparation_code", lambda dataset, student: "other code")
    assert pair() and Prepared(pair.folder).digest == before
    assert (pair.folder / "manifest.json").read_bytes() == manifest, "training's input is the same"


def test_another_method_changes_no_prepared_data(pair: Any, monkeypatch: Any):
    from cotdistill.methods import Task
    from cotdistill.methods.finetune import Finetune

    def read_data() -> dict[str, str]:
        return {name: sha for name, sha in hash_tree(pair.folder).items() if name != "warnings.txt"}

    pair()
    before = read_data()
    monkeypatch.setattr(Finetune, "tasks", (Task("label", "reflect: ", ("label",)),))
    assert not pair(method="finetune") and read_data() == before


@pytest.mark.parametrize("harm", ["a byte", "a file gone", "no manifest"])
def test_what_is_not_sound_is_prepared(pair: Any, harm: str):
    pair()
    if harm == "a byte":
        path = pair.folder / "test.arrow"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        (pair.folder / ("train.arrow" if harm == "a file gone" else "manifest.json")).unlink()
    assert pair()
    assert len(Prepared(pair.folder).table("test")) == 8


def test_another_tokenizer_in_a_pretrained_folder_is_prepared(pair: Any, tiny: Any, tmp_path: Path):
    from cotdistill import students
    from cotdistill.config.models import ScratchStudent
    from cotdistill.data.tokenizers import load_tokenizer
    from cotdistill.students import scratch

    tokenizer = load_tokenizer(tiny.prepared / "tokenizer")
    hub = tmp_path / "hub"
    students.save(scratch.build(ScratchStudent(vocabulary=250), 250, 0), tokenizer, hub)
    student = {"name": "hub", "pretrained": str(hub)}
    assert pair(student=student) and not pair(student=student)
    pieces = json.loads((hub / "tokenizer.json").read_text())
    pieces["model"]["vocab"][10][1] -= 1.0  # a piece is less probable than it was
    (hub / "tokenizer.json").write_text(json.dumps(pieces))
    assert pair(student=student)


def test_a_folder_of_an_older_version_is_named(pair: Any):
    from cotdistill.common.files import seal, write_json

    pair()
    path = pair.folder / "manifest.json"
    old = {name: value for name, value in Prepared(pair.folder).manifest.items() if name != "split_ids"}
    write_json(path, seal(old))
    with pytest.raises(UserError, match="prepared by an older version of this package; remove"):
        Prepared(pair.folder)
    assert pair()


def test_options_are_tokenised_with_the_data(pair: Any):
    for split in ("train", "valid", "test"):
        file = pair.data / f"{split}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for number, row in enumerate(rows):
            if number % 2:
                row["options"] = [row["label"], "pink"]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair()
    made = Prepared(pair.folder)
    tokenizer = made.tokenizer()
    for row in made.table("test").to_pylist():
        assert row["options_ids"] == [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in row["options"]
        ]


def test_another_split_of_the_same_rows_is_prepared(pair: Any):
    for path in pair.data.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        # 42 rows in 21 groups, many of which are in two splits
        path.write_text("".join(json.dumps({**row, "group": int(row["id"][4:]) % 21}) + "\n" for row in rows))
    dataset = {"name": "colours", "adapter": "custom", "path": str(pair.data)}
    assert pair(dataset=dataset) and not pair(dataset={**dataset, "split": "published"})
    published = Prepared(pair.folder).manifest
    assert published["split"] == "published" and published["groups"] == {"train": 21, "valid": 8, "test": 8}
    disjoint = {**dataset, "split": "group-disjoint"}
    assert pair(dataset=disjoint) and not pair(dataset=disjoint)
    made = Prepared(pair.folder)
    assert made.manifest["split"] == "group-disjoint" and made.manifest["checksum"] != published["checksum"]
    groups = [set(made.table(split).column("group").to_pylist()) for split in ("train", "valid", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 21
    assert made.manifest["sizes"] == published["sizes"]

"""Gold labels out of reach, and texts that the settings cut: counted, and apart from what runs depend on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.cli import main
from cotdistill.common.errors import UserError
from cotdistill.data.prepared import Prepared, read_warnings
from cotdistill.jobs.prepare import prepare
from cotdistill.orchestration.reproduce import _print_warnings
from cotdistill.runs.code import digest_warning_settings
from cotdistill.runs.grid import Run

ROOM = {"max_input_tokens": 200, "max_target_tokens": 200, "evaluation": {"max_new_tokens": 60}}


@pytest.fixture
def warn(tiny: Any, tmp_path: Path) -> Callable[..., list[str]]:
    """Prepare the tiny pair under settings, always in one folder; gives its warnings."""

    def again(method: str = "dss", **more: Any) -> list[str]:
        run: Run = type(tiny)(tiny.data).run(tmp_path, method, **(ROOM | more))
        prepare(run.experiment, run.dataset, run.student, run.prepared)
        again.folder = run.prepared  # type: ignore[attr-defined]
        return read_warnings(run.prepared)

    return again


def lengths(folder: Path, split: str, column: str) -> list[int]:
    ids = Prepared(folder).ragged(split, column)
    return [len(ids[row]) for row in range(len(ids))]


def count(folder: Path, split: str, column: str, most: int) -> int:
    return sum(length > most for length in lengths(folder, split, column))


def copy(source: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Write the rows of a dataset to another folder, each changed."""
    folder.mkdir()
    for path in source.glob("*.jsonl"):
        rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
        (folder / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_nothing_is_said_where_all_has_room(warn: Any):
    assert warn() == []
    assert (warn.folder / "warnings.txt").read_bytes() == b""


def test_gold_labels_out_of_reach_are_counted_and_change_no_data(warn: Any):
    warn()
    before = Prepared(warn.folder).digest
    most = min(lengths(warn.folder, "test", "label"))
    (line,) = warn(evaluation={"max_new_tokens": most})
    found = {split: count(warn.folder, split, "label", most) for split in ("valid", "test")}
    assert "colours, small: gold labels that cannot be written (dss): " in line
    assert f"valid {found['valid']} of 8, such as row '" in line and f"test {found['test']} of 8" in line
    assert f"evaluation.max_new_tokens is {most}; raise it" in line and 0 < found["test"] < 8
    assert Prepared(warn.folder).digest == before
    assert warn() == [], "written anew, as the settings are others"


@pytest.mark.parametrize(("method", "more", "own", "wanted"), [
    ("dss", {"evaluation": {"max_new_tokens": 1}}, {}, "evaluation.max_new_tokens is 1; raise it"),
    ("finetune", {"max_target_tokens": 2}, {}, "training.max_target_tokens is 2; raise it"),
    ("single_task", {"max_target_tokens": 4}, {}, "training.max_target_tokens is 4; raise it"),
    ("dss", {"max_input_tokens": 3}, {}, "training.max_input_tokens: 3 leaves no room for an input between"),
    ("mi", {}, {"max_target_tokens": 2}, "training.max_target_tokens is 2; raise it"),
])  # fmt: skip
def test_settings_under_which_no_answer_can_be_right_are_refused(
    warn: Any, tiny: Any, tmp_path: Path, method: str, more: dict[str, Any], own: dict[str, Any], wanted: str
):
    data = copy(tiny.data, tmp_path / "data", lambda row: row | {"label": f"{row['label']} hat"})
    dataset = {"name": "hats", "adapter": "custom", "path": str(data), "training": own}
    with pytest.raises(UserError) as caught:
        warn(method, dataset=dataset, **more)
    assert wanted in str(caught.value) and "\n" not in str(caught.value)
    assert "dataset 'hats', student 'small': " in str(caught.value)


def test_a_label_that_is_not_read_back_is_counted(warn: Any, tiny: Any, tmp_path: Path):
    data = copy(tiny.data, tmp_path / "data", lambda row: row | (
        {"label": f"So the answer is: {row['label']}"} if row["label"] == "red" else {}
    ))  # fmt: skip
    dataset = {"name": "bridged", "adapter": "custom", "path": str(data)}
    (line,) = warn("single_task", dataset=dataset)
    red = sum(json.loads(line)["label"].endswith(": red") for line in (data / "test.jsonl").open())
    assert f"test {red} of 8" in line and "not read back behind ['So the answer is:']" in line
    assert warn("dss", dataset=dataset) == [], "which reads all that is written"


def test_single_task_reaches_what_holds_rationale_and_label(warn: Any):
    assert warn("single_task", evaluation={"max_new_tokens": 1}) == [], "it may write a target's length"


def test_cut_inputs_are_counted_with_the_prefix(warn: Any):
    warn()
    most = 20
    lines = warn(max_input_tokens=most)
    for prefix in ("predict: ", "explain: "):
        before = len(Prepared(warn.folder).tokenizer()(prefix, add_special_tokens=False)["input_ids"])
        (line,) = (line for line in lines if repr(prefix) in line)
        assert f"inputs with the prefix {prefix!r} are cut at training.max_input_tokens (20): " in line
        for split, total in {"train": 26, "valid": 8, "test": 8}.items():
            longer = count(warn.folder, split, "input", most - before - 1)
            assert (f"{split} {longer} of {total} (longest " in line) == bool(longer)


def test_cut_targets_are_counted(warn: Any):
    warn()
    (line,) = warn(max_target_tokens=40, labels="teacher")
    longer = count(warn.folder, "train", "rationale", 39)
    assert longer
    assert f"targets of rationale are cut at training.max_target_tokens (40): train {longer} " in line
    lines = warn("single_task", max_target_tokens=40)
    assert any("targets of rationale + 'So the answer is:' + label are cut" in line for line in lines)


def test_options_that_are_cut_are_counted(warn: Any, tiny: Any, tmp_path: Path):
    long = "green with grey dots and a red and a dark blue hat of bob"
    data = copy(tiny.data, tmp_path / "data", lambda row: row | {"options": [row["label"], long]})
    lines = warn(dataset={"name": "own", "adapter": "custom", "path": str(data)}, max_target_tokens=20)
    assert any("options are scored up to training.max_target_tokens (20): train 26 of 52" in line
               for line in lines)  # fmt: skip


def test_an_equation_may_be_answered_by_a_shorter_one(warn: Any, tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "valid", "test"):
        rows = [{"input": f"add {i} and 2", "label": f"( {i}.0 + 2.0 )", "rationale": f"it is {i} and 2"}
                for i in range(8)]  # fmt: skip
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"name": "sums", "adapter": "custom", "path": str(data), "answer": "equation"}
    *shared, line = warn(dataset=dataset, evaluation={"max_new_tokens": 4})
    assert all("8 word for word" in each for each in shared)
    assert "test 8 of 8" in line and "evaluation.max_new_tokens is 4" in line


def test_the_command_and_reproduce_print_them(tiny: Any, tmp_path: Path, capsys: Any):
    settings = ROOM | {"evaluation": {"max_new_tokens": 4}}
    config, run = type(tiny)(tiny.data).config_file(tmp_path, **settings)
    for said in ("prepared ", "already prepared"):
        command = ["prepare", "--config", str(config), "--dataset", "colours", "--student", "small"]
        assert main(command) in (0, None)
        out = capsys.readouterr().out.splitlines()
        warnings = [line for line in out if line.startswith("warning: ")]
        assert said in out[0]
        assert warnings[0].startswith("warning: colours, small: gold labels that cannot be")
    other = run.prepared.with_name("twin")
    other.mkdir()
    (other / "warnings.txt").write_bytes((run.prepared / "warnings.txt").read_bytes())
    _print_warnings(run.experiment.folder)
    assert capsys.readouterr().out.splitlines() == warnings, "each distinct line once"


def test_the_rule_is_redone_for_the_settings_that_warnings_depend_on(tiny: Any, tmp_path: Path):
    def digest(method: str = "dss", **more: Any) -> str:
        return digest_warning_settings([type(tiny)(tiny.data).run(tmp_path, method, **(ROOM | more))])

    same = digest()
    assert digest(steps=13, learning_rate=0.1) == same == digest("mi")
    others = [digest("single_task"), digest(labels="teacher"), digest(max_input_tokens=30),
              digest(max_target_tokens=30), digest(evaluation={"max_new_tokens": 5})]  # fmt: skip
    assert len({same, *others}) == 6

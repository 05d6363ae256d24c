"""`training.keep`: which checkpoints stay once a run is evaluated, and what follows where one is gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.train import train
from cotdistill.orchestration import reproduce
from cotdistill.orchestration.plan import describe
from cotdistill.runs import answers, outputs
from cotdistill.runs.folder import CHECKPOINTS, LAST, REMOVED, STRICT, WEIGHTS
from cotdistill.runs.grid import Run
from cotdistill.runs.lease import Lease

KEEPS = {"both": {STRICT, LAST}, "best": {STRICT}, "last": {LAST}, "none": set()}
Make = Callable[..., Run]


@pytest.fixture(scope="module")
def original(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a run that is trained, and whose two checkpoints differ; not evaluated."""
    folder = tmp_path_factory.mktemp("keep")
    run = tiny.run(folder, "finetune", steps=8, eval_every=2)
    train(run)
    return folder


@pytest.fixture
def make(original: Path, tiny: Any, tmp_path: Path) -> Make:
    """A copy of that run, with a `keep`."""
    shutil.copytree(original, tmp_path / "results", symlinks=True)

    def run_of(keep: str) -> Run:
        return tiny.run(tmp_path / "results", "finetune", steps=8, eval_every=2, keep=keep)

    return run_of


def kept(run: Run) -> set[str]:
    return {name for name in CHECKPOINTS if (run.folder / name / WEIGHTS).exists()}


def forget_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an edit of the code of answering does."""
    monkeypatch.setattr(answers, "compute_code", lambda stage, run: "of today")


@pytest.mark.parametrize("keep", KEEPS)
def test_what_stays_is_what_was_asked_for(keep: str, make: Make):
    run = make(keep)
    before = evaluate(make("both"))
    assert kept(run) == {STRICT, LAST} and run.hash == make("both").hash, "the numbers do not depend on it"
    after = evaluate(run)
    assert kept(run) == KEEPS[keep] and not run.files.states.exists()
    assert after.strict == before.strict and after.measures == before.measures
    for name in set(CHECKPOINTS) - KEEPS[keep]:
        folder = run.folder / name
        said = read_json(folder / REMOVED)
        assert said["removed"] == WEIGHTS and said["why"] == f"training.keep: {keep}"
        assert said["sha256"] == outputs.find_weights(run, name)
        assert (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file()
    assert all(path.exists() for path in run.files.outputs), "Snakemake misses no declared output"


@pytest.mark.parametrize("keep", ["best", "last", "none"])
def test_a_run_without_weights_stays_done(keep: str, make: Make, capsys: pytest.CaptureFixture[str]):
    run = make(keep)
    first = evaluate(run)
    assert outputs.are_written(run) and answers.are_complete(run) and answers.list_lost(run) == []
    train(run)
    assert "already trained, nothing to do" in capsys.readouterr().out
    assert evaluate(run) == first, "calibration and the like need no weights"
    assert evaluate(make("both")) == first and kept(run) == KEEPS[keep], "what is gone stays gone"


def test_other_files_are_checked_as_before(make: Make):
    run = make("none")
    evaluate(run)
    path = run.folder / STRICT / "config.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"model/config\.json: corrupt"):
        evaluate(run)


def test_weights_that_were_lost_otherwise_are_missed(make: Make):
    run = make("best")
    evaluate(run)
    (run.folder / STRICT / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"cannot read .*model/model\.safetensors"):
        evaluate(run)


def test_weights_that_are_put_back_are_checked(make: Make):
    run = make("none")
    evaluate(run)
    (run.folder / STRICT / WEIGHTS).write_bytes(b"others")
    with pytest.raises(UserError, match=r"model/model\.safetensors: corrupt"):
        evaluate(run)


@pytest.mark.parametrize("at", ["note", "unlink", "second unlink"])
def test_a_killed_trim_leaves_nothing_half_made(at: str, make: Make, monkeypatch: pytest.MonkeyPatch):
    class Killed(BaseException):
        pass

    run, plain, left = make("none"), Path.unlink, [1 if at == "unlink" else 2]

    def killed(*_: Any) -> None:
        raise Killed

    def unlink(path: Path, **more: Any) -> None:
        left[0] -= path.name == WEIGHTS
        return killed() if path.name == WEIGHTS and left[0] == 0 else plain(path, **more)

    with monkeypatch.context() as patch:
        if at == "note":
            patch.setattr(outputs, "write_json", killed)
        else:
            patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Killed):
            evaluate(run)
    assert kept(run) == ({LAST} if at == "second unlink" else {STRICT, LAST})
    outputs.check(run)
    assert run.files.metrics.exists(), "numbers are there before anything goes"
    assert sorted(path.name for path in run.folder.rglob(".*")) == []
    evaluate(run)
    assert kept(run) == set()


def test_nothing_goes_while_a_process_works_on_the_run(make: Make):
    run = make("none")
    with Lease(run.files.states, until=lambda: False) as lease:
        assert lease.held
        evaluate(run)
        assert kept(run) == {STRICT, LAST}
    evaluate(run)
    assert kept(run) == set()


@pytest.mark.parametrize("keep", ["best", "last", "none"])
def test_answering_anew_without_weights_is_one_plain_line(
    keep: str, make: Make, monkeypatch: pytest.MonkeyPatch
):
    run = make(keep)
    evaluate(run)
    forget_answers(run, monkeypatch)
    gone = next(name for name in CHECKPOINTS if name not in KEEPS[keep])
    with pytest.raises(UserError) as caught:
        evaluate(run)
    said = str(caught.value)
    assert f"test is to be answered anew, and the weights of '{gone}' were removed (training.keep)" in said
    assert "\n" not in said and str(run.files.training) in said
    assert "\n1 finished runs must answer test anew" in describe(run.experiment)
    assert reproduce._train_again(run.experiment) == ["--forcerun", str(run.files.training)]


def test_what_was_removed_comes_back_by_training_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, weights: Any
):
    both = make("both")
    before = {name: weights(both, name) for name in CHECKPOINTS}
    run = make("none")
    first = evaluate(run)
    forget_answers(run, monkeypatch)
    train(run)
    assert {name: weights(run, name) for name in CHECKPOINTS} == before
    assert not (run.folder / STRICT / REMOVED).exists() and answers.are_complete(run)
    assert reproduce._train_again(run.experiment) == []
    assert evaluate(run).strict == first.strict and kept(run) == set()


def test_one_checkpoint_answers_for_both_where_they_are_the_same(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tiny.run(tmp_path, "finetune", steps=2, eval_every=2, keep="last")
    train(run)
    assert outputs.find_weights(run, STRICT) == outputs.find_weights(run, LAST)
    first = evaluate(run)
    assert kept(run) == {LAST}
    forget_answers(run, monkeypatch)
    again = evaluate(run)
    assert again.strict == first.strict and again.published == first.published


def test_lost_answers_whose_bytes_are_damaged_are_found_by_the_job(make: Make):
    run = make("none")
    evaluate(run)
    path = run.folder / "answers" / f"{STRICT}.jsonl"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="test is to be answered anew"):
        evaluate(run)


@pytest.mark.parametrize("value", ["all", "Best", "", None, True, ["best"], 1])
def test_other_values_are_refused(value: Any, tiny: Any, tmp_path: Path):
    with pytest.raises(UserError, match=r"training\.keep"):
        tiny.run(tmp_path, "finetune", keep=value)


def test_one_student_can_keep_less_than_the_others(tiny: Any, tmp_path: Path):
    student = {"name": "small", "scratch": {"layers": 1}, "training": {"keep": "none"}}
    assert tiny.run(tmp_path, "finetune", student=student).training.keep == "none"


@pytest.mark.parametrize("keep", ["best", "none"])
def test_disk_space_is_given_back(keep: str, make: Make):
    run = make(keep)

    def measure() -> int:
        found = {path.stat().st_ino: path.stat().st_size for path in run.folder.rglob("*") if path.is_file()}
        return sum(found.values())

    before, size = measure(), os.path.getsize(run.folder / STRICT / WEIGHTS)
    evaluate(run)
    assert before - measure() > (2 - len(KEEPS[keep])) * size - 20_000

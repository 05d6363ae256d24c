"""What is redone when a file changes: each stage that computes with it, and no other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cotdistill
from cotdistill.common import fingerprint
from cotdistill.orchestration.workflow import Workflow
from cotdistill.runs.code import compute_code, compute_preparation_code

PACKAGE = Path(cotdistill.__file__).parent
METHODS = ("finetune", "dss", "mi")
LIGHT = ("collect", "compare", "figures", "track")


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which the fingerprints are then taken of."""
    target = tmp_path / "cotdistill"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "PACKAGE", target)
    forget()
    yield target
    forget()


def forget() -> None:
    for cached in (fingerprint._read, fingerprint.fingerprint):
        cached.cache_clear()


def stages(device: str = "cpu", engine: str = "auto") -> dict[str, str]:
    """The code of every stage: of a run of each method, of preparing, and of what is done once."""
    forget()
    grid = Workflow({
        "experiment": "e", "datasets": ["demo"], "students": [{"name": "small", "scratch": {}}],
        "methods": list(METHODS), "seeds": [0], "training": {"device": device, "engine": engine},
    }, "test")  # fmt: skip
    runs = {run.method.name: run for run in grid.runs.values()}
    found = {f"{stage} {name}": compute_code(stage, runs[name])  # type: ignore[arg-type]
             for stage in ("train", "answer", "evaluate") for name in METHODS}  # fmt: skip
    found["prepare"] = compute_preparation_code(runs["dss"].dataset, runs["dss"].student)
    return found | {stage: grid.fingerprint_stage(stage) for stage in LIGHT}


def every(*names: str) -> set[str]:
    return {f"{stage} {method}" for stage in names for method in METHODS}


CASES: dict[str, tuple[str, set[str]]] = {
    "option scoring": ("students/packed/scoring.py", every("answer", "evaluate")),
    "what options are": ("inference/options.py", every("answer", "evaluate")),
    "a critic": ("evaluation/predictability/critic.py", every("answer", "evaluate")),
    "what the scores choose": ("evaluation/option_scores.py", every("evaluate")),
    # the figure of reliability puts confidences in the same bins
    "calibration": ("evaluation/calibration.py", {*every("evaluate"), "figures"}),
    "rationale quality": ("evaluation/rationale_quality.py", every("evaluate")),
    "generation": ("students/packed/writing.py", every("train", "answer", "evaluate")),
    "a loss": ("methods/mi.py", {"train mi", "answer mi", "evaluate mi"}),
    "the loss's formula": ("mutual_information/__init__.py", {"train mi", "answer mi", "evaluate mi"}),
    "the optimiser": ("training/trainer.py", every("train")),
    "gradients": ("students/packed/output_chunk.py", every("train", "answer", "evaluate")),
    "the other engine": ("students/reference/learning.py", set()),
    "an adapter": ("data/adapters/demo.py", {*every("evaluate"), "prepare"}),
    "another adapter": ("data/adapters/svamp.py", set()),
    "a job's order of work": ("jobs/train.py", set()),
    "the lease": ("runs/lease.py", set()),
    "a style": ("report/figures/_style.py", {"figures"}),
    "a figure's caption": ("report/figures/accuracy.py", {"figures"}),
    "a page's style": ("report/webpage.py", {"compare"}),
    "LaTeX": ("report/latex.py", {"compare"}),
    "how runs are collected": ("tables/collect.py", {"collect", "track"}),
    "MLflow": ("tracking/mlflow_store.py", {"track"}),
    "the command line": ("cli/commands.py", set()),
}


@pytest.mark.parametrize("case", CASES)
def test_an_edit_redoes_what_computes_with_it_and_nothing_else(copy: Path, case: str) -> None:
    name, expected = CASES[case]
    before = stages()
    path = copy / name
    path.write_text(path.read_text() + "\nEDITED = 1\n")
    after = stages()
    assert {stage for stage in before if before[stage] != after[stage]} == expected


def test_a_new_method_redoes_nothing(copy: Path) -> None:
    before = stages()
    text = (copy / "methods" / "finetune.py").read_text()
    (copy / "methods" / "mine.py").write_text(text.replace('prefix=""', 'prefix="reflect: "'))
    assert stages() == before


@pytest.mark.parametrize(
    ("device", "engine", "computes"),
    [("cpu", "auto", {"packed"}), ("cuda", "auto", {"reference"}), ("auto", "auto", {"packed", "reference"}),
     ("auto", "packed", {"packed"}), ("cpu", "reference", {"reference"})],
)  # fmt: skip
def test_a_run_depends_on_the_engines_that_may_compute_it(
    copy: Path, device: str, engine: str, computes: set[str]
) -> None:
    for each in ("packed", "reference"):
        before = stages(device, engine)
        path = copy / "students" / each / "learning.py"
        path.write_text(path.read_text() + "\nEDITED = 1\n")
        assert (stages(device, engine)["train dss"] != before["train dss"]) == (each in computes)


def test_comments_and_docstrings_redo_nothing(copy: Path) -> None:
    before = stages()
    for path in (copy / "training" / "trainer.py", copy / "methods" / "mi.py"):
        path.write_text("# a comment\n" + path.read_text().replace('"""', '"""Again. ', 1))
    assert stages() == before


@pytest.mark.parametrize("stage", ["train", "answer", "evaluate"])
def test_the_modules_of_a_stage_are_there(stage: Any, tiny: Any, tmp_path: Path) -> None:
    from cotdistill.common.fingerprint import closure
    from cotdistill.runs.code import list_modules

    found = closure(*list_modules(stage, tiny.run(tmp_path)))
    for name in found:
        base = PACKAGE.joinpath(*name.split("."))
        assert base.is_dir() or base.with_suffix(".py").is_file()



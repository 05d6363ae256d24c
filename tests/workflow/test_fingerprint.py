"""Fingerprints: which code stands behind a stage, and what does not count as a change."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cotdistill
from cotdistill.common import fingerprint as module
from cotdistill.common.fingerprint import closure, fingerprint
from cotdistill.methods import METHODS
from cotdistill.orchestration.workflow import MODULES

PACKAGE = Path(cotdistill.__file__).parent


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Replace text in a copy of the package, which the fingerprints are then taken of."""
    shutil.copytree(PACKAGE, tmp_path / "cotdistill", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "cotdistill")

    def replace(name: str, old: str, new: str) -> None:
        path = tmp_path / "cotdistill" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        forget()

    def forget() -> None:
        for cached in (module._read, module.fingerprint):
            cached.cache_clear()

    forget()
    yield replace
    forget()


@pytest.mark.parametrize("modules", [*MODULES.values(), ("data.prepared",)], ids=[*MODULES, "prepare"])
def test_every_stage_has_its_modules(modules: tuple[str, ...]) -> None:
    found = closure(*modules)
    assert set(modules) <= found
    for name in found:
        base = PACKAGE.joinpath(*name.split("."))
        assert base.is_dir() or base.with_suffix(".py").is_file()


def test_closure_follows_imports() -> None:
    found = closure("training.trainer")
    # at the top, below `from cotdistill import ...`, and inside a function
    assert {"runs.state", "training.window", "data.prepared", "students", "methods"} <= found
    assert {"common.seeds", "data.answers", "data.splits", "students.scratch"} <= found
    assert "students.pretrained" in found
    assert "tables.collect" not in found and "report.figures" not in found


def test_closure_of_a_loss_holds_its_mathematics() -> None:
    assert "mutual_information" in closure("methods.mi") and "methods.dss" in closure("methods.mi")
    assert "mutual_information" not in closure("methods.dss")


def test_settings_errors_and_files_do_not_count() -> None:
    found = closure("training.trainer", "methods.mi", "tables.collect", "tracking.mlflow_store")
    assert not {name.split(".")[0] for name in found} & {"config", "cli", "jobs"}
    assert not found & {"common.errors", "common.files", "common.registry", "runs.lease"}


def test_no_relative_imports_which_the_closure_cannot_see() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name}: {ast.unparse(node)}"


def test_methods_have_fingerprints_of_their_own() -> None:
    prints = {name: fingerprint("training.trainer", f"methods.{name}") for name in METHODS.names()}
    assert len(set(prints.values())) == len(prints) > 2


def test_edited_method_changes_its_own_alone(edit: Callable[[str, str, str], None]) -> None:
    before = {name: fingerprint(f"methods.{name}") for name in METHODS.names()}
    edit("methods/mi.py", "METHOD = MI", "METHOD = MI\nEDITED = 1")
    changed = {name for name in before if fingerprint(f"methods.{name}") != before[name]}
    assert changed == {"mi", "infonce", "gaussian"}, "what builds on it too"


def test_edited_base_changes_what_builds_on_it(edit: Callable[[str, str, str], None]) -> None:
    before = {name: fingerprint(f"methods.{name}") for name in METHODS.names()}
    edit("methods/dss.py", "METHOD = ", "EDITED = 1\nMETHOD = ")
    changed = {name for name in before if fingerprint(f"methods.{name}") != before[name]}
    assert {"dss", "mi"} <= changed and "finetune" not in changed


LAYOUT = {
    "comment": ("import time\n", "import time  # a comment\n"),
    "blank lines": ("import time\n", "\n\nimport time\n"),
    "docstring of the module": ('"""Optimise one run', '"""Again: optimise one run'),
    "docstring of a function": ('"""Train to the end', '"""Again: train to the end'),
}


@pytest.mark.parametrize(("old", "new"), LAYOUT.values(), ids=LAYOUT)
def test_words_for_people_do_not_count(old: str, new: str, edit: Callable[[str, str, str], None]) -> None:
    before = fingerprint("training.trainer")
    edit("training/trainer.py", old, new)
    assert fingerprint("training.trainer") == before


def test_every_number_and_name_counts(edit: Callable[[str, str, str], None]) -> None:
    before = fingerprint("training.trainer")
    edit("data/batches.py", "IGNORED = -100", "IGNORED = -101")
    changed = fingerprint("training.trainer")
    assert changed != before
    edit("data/batches.py", "IGNORED = -101", "IGNORED = -100")
    assert fingerprint("training.trainer") == before


def test_module_that_is_renamed_counts(edit: Callable[[str, str, str], None]) -> None:
    before = fingerprint("training.trainer")
    shutil.copy(module.PACKAGE / "common" / "seeds.py", module.PACKAGE / "common" / "grains.py")
    edit("training/trainer.py", "from cotdistill.common.seeds import", "from cotdistill.common.grains import")
    assert "common.grains" in closure("training.trainer") and fingerprint("training.trainer") != before


def test_the_data_file_of_a_module_counts(edit: Callable[[str, str, str], None]) -> None:
    before, training = fingerprint(*MODULES["compare"]), fingerprint("training.trainer")
    edit("analysis/reported.yaml", "verified: false", "verified: true")
    assert fingerprint(*MODULES["compare"]) != before
    assert fingerprint("training.trainer") == training


IMPORTS = '''
"""Words."""
import cotdistill.a
if True:
    import cotdistill.b
else:
    from cotdistill import c
try:
    from cotdistill.d import x
except ImportError:
    import cotdistill.e
finally:
    with open(x):
        import cotdistill.f
match x:
    case 1:
        import cotdistill.g
class Thing:
    """Words."""
    async def method(self):
        """Words."""
        for _ in x:
            while x:
                import cotdistill.h
'''


def test_imports_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    for name in "abcdefgh":
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "whole.py").write_text(IMPORTS)
    (tmp_path / "other.py").write_text(IMPORTS.replace("Words", "Other words"))
    module._read.cache_clear()
    whole, other = module._read("whole"), module._read("other")
    module._read.cache_clear()
    assert whole[1] == tuple("abcdefgh")
    assert whole == other, "no docstring counts, however deep"

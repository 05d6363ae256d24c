"""Files are written whole or not at all, and read back as they were written."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.common.files import (
    atomic,
    check_hash,
    link,
    read_json,
    read_sealed,
    replace_non_finite,
    seal,
    write_json,
)

texts = st.text(max_size=10)
finite = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | st.integers() | finite | texts
values = st.recursive(
    leaves, lambda own: st.lists(own, max_size=3) | st.dictionaries(texts, own, max_size=3), max_leaves=8
)


@settings(deadline=None)
@given(st.dictionaries(texts.filter(lambda key: key != "seal"), values, max_size=4))
def test_what_is_sealed_is_read_as_it_was(tmp_path_factory: Any, value: dict[str, Any]):
    path: Path = tmp_path_factory.getbasetemp() / "sealed.json"
    write_json(path, seal(value))
    assert read_sealed(path, "write it again") == value
    assert read_json(path).keys() == {*value, "seal"}


def test_a_value_without_a_seal_is_not_checked(tmp_path: Path):
    write_json(tmp_path / "plain.json", {"a": 1})
    assert read_sealed(tmp_path / "plain.json", "write it again") == {"a": 1}


def test_numbers_that_json_cannot_spell_become_null():
    odd = {"a": [math.nan, 1.5, (math.inf, -math.inf)], "b": {"c": -math.inf, "d": "nan"}, "e": 1e308}
    assert replace_non_finite(odd) == {
        "a": [None, 1.5, [None, None]], "b": {"c": None, "d": "nan"}, "e": 1e308
    }  # fmt: skip
    assert replace_non_finite(math.nan) is None and replace_non_finite(True) is True


@settings(deadline=None)
@given(values)
def test_finite_values_stay_as_they_are(value: Any):
    assert replace_non_finite(value) == value
    assert json.loads(json.dumps(value)) == value


class ForeignError(Exception):
    """As safetensors raises: no OSError, but with the text of one."""


@pytest.mark.parametrize("kind", [ForeignError, OSError])
def test_a_full_disk_is_one_line_whichever_library_meets_it(kind: type[Exception], tmp_path: Path):
    target = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"^cannot write .*model\.safetensors: .*No space left on device"), \
            atomic(target) as part:  # fmt: skip
        part.write_text("half")
        raise kind("I/O error: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ForeignError("tensor 3 has no name"), UserError("(os error 2)")])
def test_other_errors_stay_what_they_are(error: Exception, tmp_path: Path):
    with pytest.raises(type(error)) as raised, atomic(tmp_path / "file"):
        raise error
    assert raised.value is error and list(tmp_path.iterdir()) == []


def test_a_file_of_other_bytes_is_refused_with_what_helps(tmp_path: Path):
    path = tmp_path / "weights"
    path.write_bytes(b"as written")
    check_hash(path, hashlib.sha256(b"as written").hexdigest(), "corrupt", "train again")
    for expected in ("0" * 64, None):
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: corrupt; train again$"):
            check_hash(path, expected, "corrupt", "train again")
    path.unlink()
    with pytest.raises(UserError, match=r"^cannot read .*weights: No such file or directory; train again$"):
        check_hash(path, "0" * 64, "corrupt", "train again")


def modes(folder: Path) -> dict[str, int]:
    """The access of a folder and of all in it."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
            for path in [folder, *folder.rglob("*")]}  # fmt: skip


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002], ids=oct)
def umask(request: Any) -> Any:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def write_privately(path: Path) -> None:
    """As safetensors does: a file for its owner alone, renamed."""
    path.write_text("x")
    path.chmod(0o600)


def test_what_is_written_follows_umask_whoever_wrote_it(umask: int, tmp_path: Path):
    import tempfile

    from safetensors.numpy import save_file

    with atomic(tmp_path / "made" / "model") as part:
        part.mkdir()
        save_file({}, part / "model.safetensors")
        write_privately(part / "private")
        (part / "open").touch()
        (part / "open").chmod(0o777)
        (part / "link").symlink_to("nowhere")
        inner = Path(tempfile.mkdtemp(dir=part))
        write_privately(inner / "deep")
    with atomic(tmp_path / "made" / "file") as part:
        write_privately(part)
    with atomic(tmp_path / "made" / "new") as part:  # whatever it is called
        part.write_text("x")
    link(tmp_path / "made" / "model" / "private", tmp_path / "made" / "linked")
    (tmp_path / "made" / "model" / "link").unlink()
    for name, mode in modes(tmp_path / "made").items():
        folder = (tmp_path / "made" / name).is_dir()
        assert mode == (0o777 if folder else 0o666) & ~umask, name


def test_the_group_of_a_folder_is_still_inherited(umask: int, tmp_path: Path):
    tmp_path.chmod(0o2770)
    with atomic(tmp_path / "model") as part:
        part.mkdir(0o700)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o2777 & ~umask


PIPELINE = """
import os, sys
from pathlib import Path
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.prepare import prepare
from cotdistill.jobs.train import train
from cotdistill.runs.experiment import load
from cotdistill.runs.grid import expand
from cotdistill.tables.collect import collect
from cotdistill.tracking.mlflow_store import track
experiment = load(Path(sys.argv[1]))
(run,) = expand(experiment)
prepare(experiment, run.dataset, run.student, run.prepared)
train(run)
evaluate(run)
collect(experiment)
track(experiment)
"""


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o027, 0o077], ids=oct)
def test_all_files_of_an_experiment_follow_umask(umask: int, tiny: Any, tmp_path: Path):
    config, run = type(tiny)(tiny.data).config_file(tmp_path, steps=4, eval_every=2)
    shutil.rmtree(run.experiment.folder, ignore_errors=True)
    before = os.umask(umask)
    try:
        done = subprocess.run([sys.executable, "-c", PIPELINE, str(config)], capture_output=True, text=True,
                              timeout=300)  # fmt: skip
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    found = modes(run.experiment.folder)
    found["mlflow.db"] = stat.S_IMODE((tmp_path / "mlflow.db").stat().st_mode)
    assert any(name.endswith("model.safetensors") for name in found)
    wrong = {name: oct(mode) for name, mode in found.items() if mode & umask or mode & 0o400 == 0}
    assert not wrong
    assert {mode for name, mode in found.items() if "." in Path(name).name} == {0o666 & ~umask}

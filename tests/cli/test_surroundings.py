"""Commands do the same whatever a notebook, a service or a container left in their environment."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cotdistill.common.errors import UserError
from cotdistill.common.surroundings import make_cache_environment
from cotdistill.config.models import Experiment
from cotdistill.runs.grid import expand
from cotdistill.tables.collect import collect
from cotdistill.tracking.store import report_faults
from tests.cli.conftest import write_config
from tests.reporting.conftest import make_experiment, write_run

SOURCE = str(Path(__file__).parents[2] / "src")
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own; `shell` is put behind it in a line of sh."""
    line = shlex.join([sys.executable, "-m", "cotdistill", *arguments])
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "PYTHONUTF8")}
    return subprocess.run(
        ["sh", "-c", f"{line} {shell}"], text=True, encoding="utf-8", errors="replace", timeout=300,
        capture_output=True, stdin=subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": SOURCE, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, id="ascii"),
        pytest.param({"PYTHONIOENCODING": "latin-1:strict"}, id="latin-1"),
        pytest.param(PLAIN, id="plain locale"),
        pytest.param({**PLAIN, "PYTHONIOENCODING": "ascii:strict", "LANG": "tr_TR"}, id="all of it"),
        pytest.param({"COLUMNS": "1", "TERM": "dumb", "NO_COLOR": "1", "TZ": "nowhere/x"}, id="terminal"),
    ],
)
def test_what_a_stream_cannot_hold_is_written_all_the_same(
    tables: Experiment, tmp_path: Path, environment: dict[str, str]
) -> None:
    config = str(tmp_path / "made.yaml")
    found = run("collect", "--config", config, **environment)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    assert len(found.stdout.splitlines()) > 4 and "results.csv" in found.stdout
    wrong = run("plan", "--config", "Ωж.yaml", **environment)
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_fault(work: Path, shell: str) -> None:
    write_config(work)
    found = run("plan", shell=shell)
    assert (found.returncode, found.stderr) == (0, "")
    assert run("plan", "--config", "absent.yaml", shell=shell).returncode == 1


def test_a_folder_that_was_deleted_meanwhile_is_one_line(work: Path) -> None:
    gone = work / "gone"
    gone.mkdir()
    line = f"cd {shlex.quote(str(gone))} && rmdir ../gone && {shlex.quote(sys.executable)} -m cotdistill plan"
    found = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCE}
    )
    assert found.returncode == 1 and found.stdout == ""
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"])
def test_a_number_that_a_library_cannot_read_is_one_line(work: Path, name: str) -> None:
    write_config(work)
    found = run("plan", "--config", str(work / "config.yaml"), **{name: "ten seconds"})
    assert found.returncode == 1 and found.stderr.count("\n") == 1
    assert f"error: environment variable {name}: expected a number, found 'ten seconds'" in found.stderr


@pytest.fixture
def tables(tmp_path: Path) -> Experiment:
    """A collected experiment of finished runs, with its config in `made.yaml`; its folder is not of ASCII."""
    methods = [{"name": "plain", "method": "dss"}, "mi"]
    experiment = make_experiment(tmp_path / "größe ж", datasets=["cqa"], methods=methods, seeds=[0, 1],
                                 baseline="plain")  # fmt: skip
    for one in expand(experiment):
        write_run(one, steps=20)
    collect(experiment)
    (tmp_path / "made.yaml").write_text(experiment.model_dump_json(), encoding="utf-8")
    return experiment


def hostile(folder: Path, backend: str) -> dict[str, str]:
    """An environment in which nothing of the user's can be used, with settings of other tools left in it."""
    file = folder / "a file"
    file.touch()
    nowhere = dict.fromkeys(
        ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "HF_HOME"), str(file)
    )
    return {
        **PLAIN, **nowhere, "PYTHONIOENCODING": "ascii", "MPLBACKEND": backend, "TMPDIR": "/no/such/folder",
        "TRANSFORMERS_CACHE": str(file), "http_proxy": "http://127.0.0.1:9", "PYTHONOPTIMIZE": "1",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_REGISTRY_URI": "http://127.0.0.1:9",
        "MLFLOW_RUN_ID": "0" * 32, "MLFLOW_EXPERIMENT_NAME": "another", "MLFLOW_EXPERIMENT_ID": "99",
        "MLFLOW_LOGGING_LEVEL": "nonsense", "CUDA_VISIBLE_DEVICES": "nonsense",
        "TRANSFORMERS_VERBOSITY": "nonsense", "PYTHONWARNINGS": "error",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"])
def test_figures_are_the_same_bytes_in_any_surroundings(
    tables: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    from cotdistill.report.figures import draw_all

    expected = {path: path.read_bytes() for path in draw_all(tables)}
    for path in expected:
        path.unlink()
    monkeypatch.chdir(tmp_path)
    Path("matplotlibrc").write_text("backend: TkAgg\nfont.size: 30\nlines.linewidth: 9\n")
    found = run("figures", "--config", "made.yaml", **hostile(tmp_path, backend))
    assert found.returncode == 0 and "Traceback" not in found.stderr, found.stderr
    assert {path: path.read_bytes() for path in expected} == expected


@pytest.mark.slow
def test_tables_and_tracking_are_the_same_in_any_surroundings(
    tables: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cotdistill.report.comparison import write_comparison

    expected = {path: path.read_bytes() for path in write_comparison(tables)}
    for path in expected:
        path.unlink()
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\n")
    for command in ("compare", "track", "status"):
        found = run(command, "--config", "made.yaml", **hostile(tmp_path, "nonsense"))
        assert found.returncode == 0 and "Traceback" not in found.stderr, (command, found.stderr)
    assert {path: path.read_bytes() for path in expected} == expected
    assert (tmp_path / "größe ж" / "mlflow.db").is_file(), "tracked elsewhere than the config says"


@pytest.mark.slow
def test_a_student_of_its_own_is_prepared_and_trained_without_a_home(work: Path) -> None:
    write_config(work, methods=["dss"])
    environment = {**hostile(work, "nonsense"), "CUDA_VISIBLE_DEVICES": ""}
    name = "demo/mini/dss/gold/1/0"
    for command in (("prepare", "--dataset", "demo", "--student", "mini"), ("train", "--run", name),
                    ("evaluate", "--run", name)):  # fmt: skip
        found = run(*command, **environment)
        assert found.returncode == 0 and "Traceback" not in found.stderr, (command, found.stderr)


def test_a_setting_of_mlflow_that_it_cannot_read_is_one_line() -> None:
    from mlflow.environment_variables import MLFLOW_SQLALCHEMYSTORE_POOL_SIZE

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as raised, report_faults("here"):
        patch.setenv(MLFLOW_SQLALCHEMYSTORE_POOL_SIZE.name, "abc")
        MLFLOW_SQLALCHEMYSTORE_POOL_SIZE.get()
    assert "'abc' for MLFLOW_" in str(raised.value) and str(raised.value).endswith("unset the variable")
    with pytest.raises(ValueError), report_faults("here"):
        raise ValueError("a fault of the code stays what it is")


def test_snakemake_has_a_cache_where_there_is_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fallback = tmp_path / "file", tmp_path / "own"
    file.touch()
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "home", nobody)
        assert make_cache_environment(fallback) == {"XDG_CACHE_HOME": str(fallback)}
    for name, folder in (("HOME", file), ("XDG_CACHE_HOME", file), ("HOME", Path("/proc/nowhere"))):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(folder))
            assert make_cache_environment(fallback) == {"XDG_CACHE_HOME": str(fallback)}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_cache_environment(fallback) == {}
    assert not list((tmp_path / ".cache" / "snakemake").iterdir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of mine"))
    assert make_cache_environment(fallback) == {}

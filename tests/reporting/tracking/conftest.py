"""Trackers as processes of their own, against SQLite and a real MLflow server.

`Warm.track` is the command line in a process forked from one that has imported MLflow, which takes
seconds; apart from that it is `cotdistill track`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from cotdistill.common.files import replace_non_finite
from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri
from cotdistill.runs.grid import expand
from cotdistill.tables.collect import collect
from cotdistill.tracking import store

FORKS = """
import json, os, resource, sys
from cotdistill.cli import main
from cotdistill.tracking import live, store
store.connect("sqlite:///" + sys.argv[1])
print("ready", flush=True)
children = set()
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        children.discard(request["wait"])
        print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if not child:
        out = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (0, 1, 2):
            os.dup2(out, stream)
        if request["limit"]:  # no file grows beyond it: what a full disk looks like to a writer
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
        code = main(request["arguments"])
        sys.stdout.flush()
        os._exit(code)
    children.add(child)
    print(child, flush=True)
for child in children:  # of tests that failed
    os.kill(child, 9)
"""


class Tracker:
    """A `cotdistill track` process."""

    def __init__(self, warm: Warm, config: Path, *options: str, limit: int = 0) -> None:
        self.warm, self.log = warm, config.with_name(f"{time.time_ns()}.log")
        arguments = ["track", "--config", str(config), *options]
        self.pid = warm.ask(arguments=arguments, log=str(self.log), limit=limit)

    def kill(self, number: int = signal.SIGKILL) -> int:
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        return self.warm.ask(wait=self.pid)

    def done(self) -> str:
        """Wait for the end, which must be a good one; what was printed."""
        code = self.wait()
        assert code == 0, self.log.read_text()
        return self.log.read_text()


class Warm:
    """A process that has imported MLflow and forks trackers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert self._read() == "ready"

    def track(self, config: Path, *options: str, limit: int = 0) -> Tracker:
        """Start `cotdistill track`; no file of it may grow beyond `limit` bytes."""
        return Tracker(self, config, *options, limit=limit)

    def ask(self, **request: Any) -> int:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self._read())

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="package")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, once `warm` is there: laying one out takes seconds, copying it does not."""
    return tmp_path_factory.mktemp("store") / "mlflow.db"


@pytest.fixture(scope="package")
def warm(empty_store: Path) -> Iterator[Warm]:
    with subprocess.Popen(
        [sys.executable, "-c", FORKS, str(empty_store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])},
    ) as process:  # fmt: skip
        yield Warm(process)
        process.stdin.close()  # type: ignore[union-attr]


class Server:
    """A real `mlflow server`, which can go away and come back."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        _until(self._healthy)

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _healthy(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
            return answer.status == 200
        return False


@pytest.fixture(scope="package")
def server(warm: Warm, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder)
    made = Server(folder)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Wait until something is true."""
    return _until


def _until(true: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def config_of() -> Callable[..., tuple[Path, Experiment]]:
    """The experiment with this store, in a file for the command line."""
    return _config_of


def _config_of(experiment: Experiment, uri: str | None = None) -> tuple[Path, Experiment]:
    changed = experiment.model_copy(update={"tracking": experiment.tracking.model_copy(update={"uri": uri})})
    path = Path(experiment.results, f"{experiment.experiment}.yaml")
    path.write_text(yaml.safe_dump(changed.model_dump(mode="json")))
    return path, changed


@pytest.fixture(scope="session")
def content() -> Callable[[Experiment], dict[str, Any]]:
    """All that MLflow shows of an experiment, with names for ids: equal for equal stores."""
    return _content


def _content(experiment: Experiment) -> dict[str, Any]:
    client = MlflowClient(get_uri(experiment))
    found = client.get_experiment_by_name(experiment.experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], max_results=5000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    shown: dict[str, Any] = {}
    for run in runs:
        tags = {key: _named(value, experiment, names) for key, value in run.data.tags.items()}
        tags.pop(store.NOTE_DIGEST, None)  # of the text with ids and folders
        tags[store.PARENT] = names.get(run.data.tags.get(store.PARENT, ""), "")
        assert run.info.run_name not in shown, f"{run.info.run_name} stands twice"
        series = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        shown[run.info.run_name] = {
            "tags": tags,
            "params": run.data.params,
            "info": (run.info.status, run.info.start_time, run.info.end_time, run.info.user_id),
            "inputs": {i.dataset.name: i.dataset.digest for i in run.inputs.dataset_inputs},
            "artifacts": _artifacts(client, run.info.run_id),
            "metrics": {
                key: sorted((point.step, point.timestamp, repr(point.value)) for point in points)
                for key, points in series.items()
            },
        }
    return shown


def _named(text: str, experiment: Experiment, names: dict[str, str]) -> str:
    """A tag with names for ids and folders."""
    for run_id, name in names.items():
        text = text.replace(run_id, name)
    text = re.sub(r"#/experiments/\d+/", "#/experiments/<id>/", text)
    return text.replace(str(Path(experiment.results, experiment.experiment).absolute()), "<folder>")


def _artifacts(client: MlflowClient, run_id: str) -> dict[str, str]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for artifact in client.list_artifacts(run_id):
            file = Path(client.download_artifacts(run_id, artifact.path, folder))
            found[artifact.path] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


@pytest.fixture
def grid(made: Any, seal: Any, warm: Warm, empty_store: Path) -> Experiment:
    """Four finished runs in two cells, with an empty SQLite store; one value of a history is not finite."""
    experiment = made(datasets=["cqa"], methods=["dss", "mi"], seeds=[0, 1], steps=40)
    shutil.copy(empty_store, Path(experiment.results, "mlflow.db"))
    run = expand(experiment)[0]
    with open(run.files.history, "a") as handle:
        handle.write(json.dumps(replace_non_finite({"step": 40, "loss/total": float("nan")})) + "\n")
    seal(run)
    collect(experiment)
    return experiment


@pytest.fixture(scope="package")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def expected(grid: Experiment, warm: Warm, kept: dict[str, Any], empty_store: Path) -> dict[str, Any]:
    """What one uninterrupted `track` of the grid writes into a SQLite store. The same for every test."""
    if not kept:
        # a file of its own: this process keeps a connection to each that it has looked into
        database = shutil.copy(empty_store, Path(grid.results, "uninterrupted.db"))
        config, experiment = _config_of(grid, f"sqlite:///{database}")
        warm.track(config).done()
        kept.update(_content(experiment))
    return kept


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tracking into a local store opens no connection."""

    def refuse(*address: Any) -> None:
        raise AssertionError(f"tracking opened a connection to {address[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield


@pytest.fixture(scope="session")
def laid_out_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs; laying one out takes seconds, copying it does not."""
    path = tmp_path_factory.mktemp("laid-out") / "mlflow.db"
    store.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def small(made: Callable[..., Experiment], laid_out_store: Path) -> Experiment:
    """One dataset, two methods, two seeds and an empty store."""
    experiment = made(datasets=["cqa"], methods=["dss", "mi"], seeds=[0, 1], steps=40)
    shutil.copy(laid_out_store, Path(experiment.results, "mlflow.db"))
    return experiment

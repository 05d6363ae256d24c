"""A tiny experiment, trained for real: 42 invented rows, a student of 16 dimensions, a dozen steps.

Folders that several tests read are made once a session, also where pytest-xdist runs several workers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

from cotdistill.common.files import read_jsonl
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import Run, expand

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a suite in the background of a shell script ignores Ctrl-C, and so would all that its tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)

Once = Callable[[str, Callable[[Path], None]], Path]

NAMES = ["ann", "bob", "cem", "dia", "eli", "fay"]
THINGS = ["cup", "hat", "car", "pen", "box", "kite", "lamp"]
COLOURS = ["red", "dark blue", "green with grey dots"]
SCRATCH = {"d_model": 16, "d_ff": 32, "d_kv": 4, "heads": 2, "layers": 1, "vocabulary": 250}
TRAINING = {
    "steps": 12, "batch_size": 8, "learning_rate": 0.01, "eval_every": 4, "log_every": 3,
    "checkpoint_every": 5, "device": "cpu", "max_input_tokens": 64, "max_target_tokens": 48,
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """The colour follows from the name; targets differ in length, the teacher errs on every fifth row."""
    made = []
    for number in range(len(NAMES) * len(THINGS)):
        name, thing = NAMES[number % len(NAMES)], THINGS[number % len(THINGS)]
        colour = COLOURS[number % 3]
        more = f" the {thing} is no exception, so look for {colour} paint." if number % 2 else ""
        made.append({
            "id": f"row-{number}", "label": colour,
            "input": f"what colour is the {thing} of {name}?" + " please." * (number % 4),
            "rationale": f"{name} paints all things {colour}.{more}",
            "teacher_label": COLOURS[(number + 1) % 3] if number % 5 == 0 else colour,
        })  # fmt: skip
    return made


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Tiny:
    """Makes runs of the tiny experiment; each has its own results folder, all share the prepared pair."""

    def __init__(self, data: Path, prepared: Path | None = None) -> None:
        self.data, self.prepared = data, prepared

    def config(
        self, results: Path, method: str = "dss", settings: dict[str, Any] | None = None, *,
        student: dict[str, Any] | None = None, scratch: dict[str, Any] | None = None, labels: str = "gold",
        fraction: float = 1.0, seed: int = 0, evaluation: dict[str, Any] | None = None,
        dataset: dict[str, Any] | None = None, **training: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The values of a config file with one run; keywords beside the named ones are training settings."""
        return {
            "experiment": "tiny",
            "datasets": [dataset or {"name": "colours", "adapter": "custom", "path": str(self.data)}],
            "students": [student or {"name": "small", "scratch": {**SCRATCH, **(scratch or {})}}],
            "methods": [{"name": method, "method": method, **(settings or {})}],
            "labels": [labels], "fractions": [fraction], "seeds": [seed], "results": str(results),
            "training": {**TRAINING, **training},
            "evaluation": {"batch_size": 8, "max_new_tokens": 14, **(evaluation or {})},
        }  # fmt: skip

    def run(self, results: Path, *arguments: Any, **more: Any) -> Run:
        """The one run of that config, ready to train."""
        (run,) = expand(parse(self.config(results, *arguments, **more), "tests"))
        if self.prepared is not None and not run.prepared.exists():
            shutil.copytree(self.prepared, run.prepared)
        return run

    def config_file(self, results: Path, method: str = "dss", **more: Any) -> tuple[Path, Run]:
        """The same, with the config in a file for the command line."""
        run = self.run(results, method, **more)
        path = Path(results, "config.yaml")
        path.write_text(yaml.safe_dump(self.config(results, method, **more)), encoding="utf-8")
        return path, run


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder once a session: the first that asks makes it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"

    def make(name: str, build: Callable[[Path], None]) -> Path:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / f"{name}.lock"):
            if not (root / f"{name}.made").exists():
                build(folder)
                (root / f"{name}.made").touch()
        return folder

    return make


@pytest.fixture(scope="session")
def make_tiny(once: Once) -> Callable[[str, Callable[[list[Any]], dict[str, list[Any]]]], Tiny]:
    """Prepare the tiny experiment with its rows cut into splits by a function, once a session and name."""
    from cotdistill.jobs.prepare import prepare

    def make(name: str, cut: Callable[[list[Any]], dict[str, list[Any]]]) -> Tiny:
        def build(folder: Path) -> None:
            for split, lines in cut(rows()).items():
                write_lines(folder / "data" / f"{split}.jsonl", lines)
            run = Tiny(folder / "data").run(folder)
            prepare(run.experiment, run.dataset, run.student, folder / "prepared")

        folder = once(name, build)
        return Tiny(folder / "data", folder / "prepared")

    return make


@pytest.fixture(scope="session")
def tiny(make_tiny: Any) -> Tiny:
    """The tiny experiment, prepared: 26 training rows, 8 to validate, 8 to test."""
    return make_tiny("tiny", lambda made: {"train": made[:26], "valid": made[26:34], "test": made[34:]})


@pytest.fixture(scope="session")
def trained(tiny: Tiny, once: Once) -> Callable[[str], Run]:
    """The run of a method, trained and evaluated for real, with rationales. Shared: read, do not change."""
    from cotdistill.jobs.evaluate import evaluate
    from cotdistill.jobs.train import train

    def run_of(method: str) -> Run:
        more = {"evaluation": {"rationales": True}}

        def build(folder: Path) -> None:
            run = tiny.run(folder, method, **more)
            train(run)
            evaluate(run)

        return tiny.run(once(f"trained-{method}", build), method, **more)

    return run_of


@pytest.fixture(scope="session")
def weights() -> Callable[..., bytes]:
    """The bytes of a run's weights: what must be equal to the last bit."""

    def read(run: Run, which: str = "model_last") -> bytes:
        return (run.folder / which / "model.safetensors").read_bytes()

    return read


@pytest.fixture(scope="session")
def history() -> Callable[[Run], list[dict[str, Any]]]:
    """A run's history without its speed, the one number that two equal runs may differ in."""

    def read(run: Run) -> list[dict[str, Any]]:
        lines = read_jsonl(run.folder / "history.jsonl")
        return [{key: value for key, value in line.items() if key != "examples_per_second"} for line in lines]

    return read


@pytest.fixture(scope="session")
def numbers(history: Callable[[Run], Any]) -> Callable[[Run], dict[str, Any]]:
    """All that two equal runs share, to the last bit: every number but times; evaluates if need be."""

    def read(run: Run) -> dict[str, Any]:
        if not (run.folder / "metrics.json").exists():
            from cotdistill.jobs.evaluate import evaluate

            evaluate(run)
        metrics = json.loads((run.folder / "metrics.json").read_text())
        for key in ("evaluation_wall_s", "files", "seal"):  # a history and an environment tell times
            del metrics[key]
        files = ("model/model.safetensors", "model_last/model.safetensors", "predictions.jsonl")
        return {
            **{name: (run.folder / name).read_bytes() for name in files},
            "history": history(run), "metrics": metrics,
        }  # fmt: skip

    return read


# executed in a process before its command: `code` runs when a function is called for the n-th time
AT_CALL = """
import {module} as module
undisturbed, left = module.{name}, [{count}]
def disturbed(*arguments, **more):
    left[0] -= 1
    if left[0] == 0:
        import os, signal, subprocess
        {code}
    return undisturbed(*arguments, **more)
module.{name} = disturbed
"""


@pytest.fixture(scope="session")
def at_call() -> Callable[..., str]:
    """Code for `forks(first=...)`: `at_call(module, name, count, code)` runs code at that call."""

    def source(module: str, name: str, count: int, code: str) -> str:
        return AT_CALL.format(module=module, name=name, count=count, code=code)

    return source


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start `python <arguments>` with the package importable, output piped, environment as given."""

    def popen(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        import cotdistill

        source = str(Path(cotdistill.__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": source, **environment},
        )  # fmt: skip

    return popen


@pytest.fixture(scope="session")
def python(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Run `python <arguments>` to its end; gives its standard output, and fails where it fails."""

    def run(*arguments: object, **environment: str) -> str:
        process = start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out

    return run


# importing torch and transformers takes seconds: one process does it and forks a child for each command
FORKS = """
import json, os, sys
import cotdistill.cli, cotdistill.jobs.train, cotdistill.jobs.evaluate
import transformers.generation, transformers.modeling_utils, transformers.models.t5.modeling_t5
import torch._inductor.config, transformers.tokenization_utils_tokenizers

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(log, 1), os.dup2(log, 2)
    os.environ.update(order["environment"])
    exec(order["first"])
    code = 1
    try:
        code = cotdistill.cli.main(order["command"])
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
"""


class Forks:
    """Starts `cotdistill` commands as real processes, of their own pid, without the time of imports."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self.server = server

    def __call__(self, *command: object, log: Path, first: str = "", **environment: str) -> int:
        """Start a command, `first` executed before it; returns its pid. Its output is added to `log`."""
        order = {"command": [*map(str, command)], "log": str(log), "first": first, "environment": environment}
        return self._ask(order)

    def wait(self, pid: int) -> int:
        """The exit code of a started command (minus a signal's number), when it has ended."""
        return self._ask({"wait": pid})

    def _ask(self, order: dict[str, Any]) -> int:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A process that has all imported, to fork commands from. One thread, as a fork must have."""
    import cotdistill

    source = str(Path(cotdistill.__file__).parents[1])
    server = subprocess.Popen(
        [sys.executable, "-c", FORKS], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    yield Forks(server)
    server.kill()
    server.communicate()

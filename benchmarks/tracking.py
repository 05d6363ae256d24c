"""How long MLflow takes a grid: `cotdistill track` beside one client that writes the same batches directly.

Both write the same synthetic runs into SQLite stores of their own, in turns. Printed are the seconds of
each, their ratio, and the seconds of a second `track`, which finds nothing to do: within the process,
and as a command of its own, which has to import MLflow first.

    python benchmarks/tracking.py --runs 1000 --points 400 --rounds 1
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cotdistill.common.files import hash_file, seal
from cotdistill.config.models import Experiment
from cotdistill.runs.documents import SCHEMA_VERSION
from cotdistill.runs.grid import Run, expand

SEEDS, TEST = 5, 200
SERIES = ("loss/total", "loss/label", "loss/rationale", "loss/mutual_information", "valid/accuracy",
          "valid/n", "learning_rate", "gradient_norm", "speed", "mi/decoder/infonce")  # fmt: skip
MEASURES = {
    "calibration": {"sequence": {"n": TEST, "ece_width": 0.1, "ece_mass": 0.1, "brier": 0.2, "nll": 0.6}},
    "mi": {"decoder": {"infonce": {"value": 1.2, "low": 1.0, "high": 1.4, "n": TEST, "ceiling": 4.1}}},
}
FINAL = 26
"""metrics of a run beside its series: the columns of its row and its measures"""


def main() -> None:
    """Measure, and print a line a round and the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="finished runs (default: %(default)s)")
    parser.add_argument("--points", type=int, default=400, help="metric points a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that both write (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.runs, options.points, options.rounds)


def measure(folder: Path, runs: int, points: int, rounds: int) -> None:
    """Write the run folders, then both stores `rounds` times."""
    from cotdistill.tables.collect import collect
    from cotdistill.tracking import store

    experiment = grid(folder / "results", runs)
    for run in expand(experiment):
        write(run, points)
    collect(experiment)
    print(f"{runs} runs of {points} metric points")
    empty = folder / "empty.db"
    store.connect(f"sqlite:///{empty}")
    ratios: list[float] = []
    again = []
    for number in range(rounds):
        here = folder / str(number)
        here.mkdir()
        for name in ("track", "direct"):
            shutil.copy(empty, here / f"{name}.db")
        tracked = into(experiment, here / "track.db")
        direct = compare(tracked, here / "direct.db", ratios)
        again.append(timed(functools.partial(unchanged, tracked, runs)))
        print(f"direct {direct:.2f} s, ratio {ratios[-1]:.2f}, again {again[-1]:.2f} s", flush=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tracked.model_dump(mode="json")))
    command = [sys.executable, "-m", "cotdistill", "track", "--config", str(config)]
    alone = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    print(
        f"median of {rounds}: ratio {statistics.median(ratios):.2f}, again {statistics.median(again):.2f} s; "
        f"again as a command of its own {alone:.2f} s"
    )


def into(experiment: Experiment, database: Path) -> Experiment:
    """The experiment with this store."""
    tracking = experiment.tracking.model_copy(update={"uri": f"sqlite:///{database}"})
    return experiment.model_copy(update={"tracking": tracking})


def compare(experiment: Experiment, database: Path, ratios: list[float]) -> float:
    """Write the grid directly into `database`, then `track` it; the seconds of the first."""
    from cotdistill.tracking import track

    calls = batches(experiment)
    direct = timed(lambda: replay(f"sqlite:///{database}", calls))
    ratios.append(timed(lambda: track(experiment)) / direct)
    return direct


def grid(results: Path, runs: int) -> Experiment:
    """A grid of this many runs: one dataset, two methods, five seeds and as many fractions as that needs."""
    if runs % (2 * SEEDS):
        raise SystemExit(f"--runs {runs}: expected a multiple of {2 * SEEDS}")
    cells = runs // (2 * SEEDS)
    return Experiment.model_validate(
        {
            "experiment": "synthetic",
            "datasets": ["cqa"],
            "students": [{"name": "tiny", "scratch": {}}],
            "methods": ["dss", "mi"],
            "fractions": [round((k + 1) / cells, 4) for k in range(cells)],
            "seeds": list(range(SEEDS)),
            "results": str(results),
        }
    )


def write(run: Run, points: int) -> None:
    """Write the folder of a finished run, without the syncs that a real one pays for."""
    run.folder.mkdir(parents=True)
    identity = {"schema_version": SCHEMA_VERSION, "run": run.id, "hash": run.hash}
    config = seal({**identity, "engine": "packed", "config": run.config})
    write_plain(run.folder / "config.json", json.dumps(config))
    lines = [
        {"step": step, **{name: 1 / (step + k) for k, name in enumerate(SERIES)}}
        for step in range(1, (points - FINAL) // len(SERIES) + 1)
    ]
    rest = (points - FINAL) % len(SERIES)
    lines.append({"step": len(lines) + 1, **{name: 0.5 for name in SERIES[:rest]}})
    write_plain(run.folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    row = {"input": "x" * 80, "gold": "a", "prediction": "a", "correct": True, "confidence": 0.9}
    rows = [{"id": str(number), **row} for number in range(TEST)]
    write_plain(run.folder / "predictions.jsonl", "".join(json.dumps(line) + "\n" for line in rows))
    environment = {
        **identity, "versions": {}, "hardware": {}, "engine": "packed", "student": {},
        "git_commit": "0123abc", "data_checksum": hashlib.sha256(b"cqa").hexdigest()[:16], "device": "cpu",
        "wall_s": 60.0, "peak_memory_mb": 512.0, "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:05+00:00",
    }  # fmt: skip
    write_plain(run.folder / "environment.json", json.dumps(seal(environment)))
    share = {
        "test_accuracy": 0.5, "test_correct": TEST // 2, "test_n": TEST, "test_groups": TEST,
        "mean_confidence": 0.8,
    }  # fmt: skip
    split = {"accuracy": 0.75, "correct": 3 * TEST // 4, "n": TEST, "unparsed": 0}
    teacher = dict.fromkeys(("train", "valid", "test"), split)
    metrics = {
        **identity,
        "strict": {"step": 20, "valid_accuracy": 0.5, **share},
        "published": {"step": 40, **share},
        "teacher": teacher,
        "sizes": {"train": 720, "valid": 80, "test": TEST},
        "evaluation_wall_s": 1.5,
        "measures": MEASURES,
        "files": {
            name: hash_file(run.folder / name)
            for name in ("config.json", "history.jsonl", "environment.json", "predictions.jsonl")
        },
    }
    write_plain(run.folder / "metrics.json", json.dumps(seal(metrics)))


def write_plain(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


Call = tuple[str, str, dict[str, Any]]
"""method of the client, run id, named arguments"""


class Recorder:
    """An MLflow client without a store: it keeps the runs that are made, their batches and their ends."""

    tracking_uri = ""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None

    def search_runs(self, experiment_ids: list[str], **options: Any) -> Any:
        from mlflow.store.entities import PagedList

        return PagedList([], None)

    def create_run(self, experiment_id: str, **options: Any) -> Any:
        from mlflow.entities import Run as StoredRun
        from mlflow.entities import RunData, RunInfo

        run_id = f"run{len(self.calls)}"
        self.calls.append(("create_run", run_id, options))
        info = RunInfo(run_id, experiment_id, "", "RUNNING", options["start_time"], None, "active")
        return StoredRun(info, RunData())

    def log_batch(self, run_id: str, **options: Any) -> None:
        self.calls.append(("log_batch", run_id, options))

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self.calls.append(("set_terminated", run_id, {"status": status, "end_time": end_time}))


def batches(experiment: Experiment) -> list[Call]:
    """The runs that `track` makes, the batches that it logs and the ends that it sets, in order."""
    from cotdistill.tracking import finished, mlflow_store

    recorder = Recorder()
    found = finished.select_finished(experiment)
    mlflow_store.write_runs(recorder, "0", experiment, found, {})  # type: ignore[arg-type]
    return recorder.calls


def replay(uri: str, calls: list[Call]) -> None:
    """Write the recorded calls through one client."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    target = client.create_experiment("direct")
    ids: dict[str, str] = {}
    for name, run_id, options in calls:
        if name == "create_run":
            ids[run_id] = client.create_run(target, **options).info.run_id
        else:
            getattr(client, name)(ids[run_id], **options)


def unchanged(experiment: Experiment, runs: int) -> None:
    """Track once more, which must find nothing to do."""
    from cotdistill.tracking import track

    report = track(experiment)
    if report["unchanged"] != runs:
        raise SystemExit(f"expected {runs} unchanged runs, found {report}")


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

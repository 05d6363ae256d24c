"""`track --follow`: runs in training are seen as they go, and the end is that of a plain `track`."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.collect import collect
from cotdistill.tracking import store

pytestmark = pytest.mark.slow


class Job:
    """A run in training, simulated: its finished folder is put aside and its history grows line by line."""

    def __init__(self, run: Run) -> None:
        self.run, self.aside = run, run.folder.with_name(f"{run.seed}.aside")
        run.folder.rename(self.aside)
        self.lines = (self.aside / "history.jsonl").read_text().splitlines(keepends=True)
        self.history = run.state / "history.jsonl"

    def write(self, first: int, last: int) -> None:
        self.history.parent.mkdir(parents=True, exist_ok=True)
        with open(self.history, "a") as handle:
            handle.writelines(self.lines[first:last])

    def tear(self) -> None:
        """Leave half a line, as a kill does."""
        with open(self.history, "a") as handle:
            handle.write('{"step": 9')

    def rewind(self, last: int) -> None:
        """Go back, as a run does that goes on from its last saved state."""
        part = self.history.with_suffix(".part")
        part.write_text("".join(self.lines[:last]))
        os.replace(part, self.history)

    def finish(self) -> None:
        if self.run.folder.exists():
            shutil.rmtree(self.run.folder)
        self.aside.rename(self.run.folder)


def series(experiment: Experiment, run: Run, status: str = "RUNNING") -> list[tuple[int, float]]:
    """The loss of the run as MLflow has it, if it has this status."""
    client = MlflowClient(get_uri(experiment))
    found = client.get_experiment_by_name(experiment.experiment)
    runs = client.search_runs([found.experiment_id], f"tags.`{store.RUN}` = '{run.id}'") if found else []
    if len(runs) != 1 or runs[0].info.status != status:
        return []
    return sorted((p.step, p.value) for p in client.get_metric_history(runs[0].info.run_id, "loss/total"))


@pytest.fixture
def live(grid: Experiment, expected: Any, server: Any, config_of: Any) -> tuple[Path, Experiment, list[Job]]:
    """The grid in training: the first run is done, the others wait. Its name is this test's own."""
    renamed = grid.model_copy(update={"experiment": f"live-{time.time_ns()}"})
    shutil.move(Path(grid.results, grid.experiment), Path(grid.results, renamed.experiment))
    config, experiment = config_of(renamed, server.uri)
    return config, experiment, [Job(run) for run in expand(experiment)[1:]]


def test_follow_shows_runs_as_they_train_and_ends_as_track_does(
    live: Any, expected: Any, warm: Any, server: Any, content: Any, until: Any
) -> None:
    config, experiment, (one, two, three) = live
    tracker = warm.track(config, "--follow", "0.2")
    one.write(0, 4)  # steps 10, 20, 20 (validation) and 30
    one.tear()
    until(lambda: len(series(experiment, one.run)) == 3)
    one.rewind(1)
    two.write(0, 1)
    until(lambda: len(series(experiment, two.run)) == 1)
    one.write(1, 5)
    two.write(1, 3)
    until(lambda: len(series(experiment, one.run)) > 3 and len(series(experiment, two.run)) > 1)
    assert [step for step, _ in series(experiment, one.run)] == [10, 20, 30, 40]
    second = warm.track(config, "--follow", "0.2")
    assert second.wait() == 1 and "another `track --follow`" in second.log.read_text()

    server.stop()
    two.write(3, 4)
    three.write(0, 2)
    one.finish()
    until(lambda: "trying again" in tracker.log.read_text())
    server.start()
    until(lambda: [step for step, _ in series(experiment, two.run)] == [10, 20, 30])
    until(lambda: series(experiment, one.run, "FINISHED"))
    for job in (two, three):
        job.finish()
    printed = tracker.done()
    assert printed.count("trying again") == printed.count("answers again") == 1, printed
    assert "View run" not in printed, "MLflow's own chatter"
    assert printed.splitlines()[-1].endswith("added 4, updated 0, unchanged 0, gone 0, missing 0")
    assert content(experiment) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_follower_that_ends_early_leaves_nothing_that_track_does_not_complete(
    number: signal.Signals, live: Any, expected: Any, warm: Any, content: Any, until: Any
) -> None:
    config, experiment, (one, two, three) = live
    tracker = warm.track(config, "--follow", "0.2")
    one.write(0, 5)
    two.write(0, 5)
    until(lambda: series(experiment, two.run) and series(experiment, one.run))
    code = tracker.kill(number)
    if number == signal.SIGKILL:
        again = warm.track(config, "--follow", "0.2")  # takes over what stands there
        one.write(5, 6)
        until(lambda: [step for step, _ in series(experiment, one.run)] == [10, 20, 30, 40])
        again.kill()
        two.finish()
        collect(experiment, allow_missing=True)
        warm.track(config).done()
    else:
        printed = tracker.log.read_text().splitlines()
        assert code == 0 and len([line for line in printed if line.startswith("stopped:")]) == 1
        assert printed[-1].endswith("missing 3"), printed
    runs = content(experiment)
    finished = [run.id for run in expand(experiment) if (run.folder / "metrics.json").exists()]
    assert {name for name, run in runs.items() if store.RUN in run["tags"]} == set(finished)
    assert {run["info"][0] for run in runs.values()} == {"FINISHED"}
    for job in (one, three) if number == signal.SIGKILL else (one, two, three):
        job.finish()
    collect(experiment)
    warm.track(config).done()
    assert content(experiment) == expected


def test_follow_mirrors_a_real_training(
    tiny: Any, warm: Any, tmp_path: Path, empty_store: Path, until: Any
) -> None:
    from cotdistill.jobs.evaluate import evaluate
    from cotdistill.jobs.train import train

    config, run = tiny.config_file(tmp_path, steps=24, log_every=1)
    shutil.copy(empty_store, tmp_path)
    tracker = warm.track(config, "--follow", "0.1")
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            seen.append(len(series(run.experiment, run)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        train(run)
        until(lambda: seen and seen[-1] == 24)
    finally:
        over.set()
        watcher.join()
    evaluate(run)
    assert "added 1" in tracker.done()
    assert len(series(run.experiment, run, "FINISHED")) == 24

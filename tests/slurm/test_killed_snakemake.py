"""The login session is lost while jobs run, and one run of the grid can only fail."""

from __future__ import annotations

import datetime
import json
import os
import signal
from collections.abc import Iterator

import pytest
from cluster import Cluster, until
from grid import RUNS, Checkout, Reference, Snakemake, run_id

GOOD = run_id(RUNS[0])
BROKEN = run_id("mini/broken/0")


class Story:
    """A grid whose Snakemake was killed and started again; its jobs never noticed."""

    def __init__(self, work: Checkout) -> None:
        self.work = work
        self.first = self.launch()
        self.second: Snakemake | None = None
        self.killed_at = datetime.datetime.max.replace(tzinfo=datetime.UTC)
        self.trainer = self.code = 0

    def launch(self) -> Snakemake:
        """Trainings that ask for no GPU, so that a duplicate need not wait for one."""
        return self.work.start("compare", "--retries", "0")

    def kill(self) -> None:
        """Kill Snakemake in the middle of the good run's training; which stands still meanwhile."""
        until("the good run trains", lambda: self.work.step(GOOD), 600)
        self.trainer = until("somebody holds the lease", lambda: self.work.process(GOOD), 60)
        os.kill(self.trainer, signal.SIGSTOP)
        self.first.process.kill()
        self.first.process.wait()
        self.killed_at = datetime.datetime.now(datetime.UTC)

    def again(self) -> None:
        """Start it again as its message says; the good run goes on when its duplicate is there."""
        self.work.call("-m", "snakemake", "--configfile", "cluster.yaml", "--unlock")
        self.second = self.launch()
        until("the duplicate waits", lambda: "its result will be used" in self.work.log(GOOD), 400)
        os.kill(self.trainer, signal.SIGCONT)
        self.code = self.second.wait()


@pytest.fixture(scope="module")
def story(
    cluster: Cluster, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """The grid of a good run and a broken one, killed, started again and ended."""
    names = [RUNS[0], "mini/broken/0"]
    work = Checkout.make(tmp_path_factory.mktemp("killed") / "work", names, cluster)
    reference.lend_prepared(work)
    told = Story(work)
    try:
        told.kill()
        told.again()
        yield told
    finally:
        for each in filter(None, (told.first, told.second)):
            each.process.kill()
        print(told.first.text())


def test_run_is_trained_once(story: Story, cluster: Cluster) -> None:
    trained = json.loads((story.work.folder(GOOD) / "environment.json").read_text())
    assert datetime.datetime.fromisoformat(trained["started_at"]) < story.killed_at
    found = [job.state for job in story.work.attempts(cluster, GOOD)]
    assert found == ["COMPLETED", "COMPLETED"], "the orphan, and its duplicate"
    log = story.work.log(GOOD)
    assert "already trained" in log or "trained before" in log, log
    assert "step/s" not in log, "the duplicate trained nothing"


def test_numbers_are_those_of_an_undisturbed_local_run(story: Story, reference: Reference) -> None:
    found, expected = story.work.numbers(GOOD), reference.numbers(GOOD)
    assert [key for key in expected if found[key] != expected[key]] == []


def test_failing_run_fails_the_grid_and_no_other_run(story: Story) -> None:
    assert story.code != 0
    assert not (story.work.folder(BROKEN) / "metrics.json").exists()
    assert (story.work.folder(GOOD) / "metrics.json").exists()
    assert "not finite" in story.work.log(BROKEN)


def test_report_names_the_failed_run(story: Story) -> None:
    table = story.work.root / "results/cluster/tables/comparison.md"
    assert table.is_file(), "tables are written all the same"
    assert BROKEN in table.read_text()

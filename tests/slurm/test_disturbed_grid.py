"""A grid on two GPUs in which everything happens that happens on a cluster; its numbers do not know.

One Snakemake runs three runs. They are requeued, preempted, cancelled, stopped at a time limit and killed
for their memory, each in the middle of training; and Slurm's controller is away for a while.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster
from driver import EVENTS, FIRST, LEAN, SECOND, Driver
from grid import RUNS, Checkout, Reference, run_id


@pytest.fixture(scope="module")
def story(
    cluster: Cluster, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    """The whole grid, disturbed and finished."""
    work = Checkout.make(tmp_path_factory.mktemp("disturbed") / "work", RUNS, cluster)
    reference.lend_prepared(work)
    driver = Driver(cluster, work, work.start("compare", "--set-resources", "train:gpu=1", "evaluate:gpu=1"))
    try:
        driver.drive(1200)
        yield driver
    finally:
        driver.snakemake.process.kill()
        print(driver.snakemake.text())


def test_grid_finishes(story: Driver) -> None:
    assert story.snakemake.process.returncode == 0, story.snakemake.text()
    assert (story.work.root / "results/cluster/tables/comparison.md").is_file()
    assert sorted(story.hit) == sorted(sum(EVENTS.values(), [])), "each met its run in training"


def test_two_jobs_train_at_once_each_on_a_gpu_of_its_own(story: Driver) -> None:
    pairs = [seen for seen in story.together if len(seen) > 1]
    assert pairs, "two trainings at once"
    assert all(len({device for _, device in seen}) == len(seen) for seen in pairs), pairs


def test_requeue_and_preemption_use_up_no_retry(story: Driver, cluster: Cluster) -> None:
    (only,) = story.work.attempts(cluster, FIRST)
    assert story.hit["requeue"][0].id == story.hit["preempt"][0].id == only.id
    assert int(cluster.field(only.id, "Restarts")) >= 2
    starts = story.went_on_from(FIRST)
    for event in ("requeue", "preempt"):
        assert any(start >= story.hit[event][1] for start in starts), "what was saved is kept"


def test_cancelled_job_is_tried_again_and_goes_on(story: Driver, cluster: Cluster) -> None:
    job, step = story.hit["cancel"]
    assert [each.state for each in story.work.attempts(cluster, SECOND)] == ["CANCELLED", "COMPLETED"]
    assert story.work.attempts(cluster, SECOND)[0].id == job.id
    assert story.went_on_from(SECOND)[-1] >= step


def test_run_longer_than_its_time_limit_goes_on_without_a_retry(story: Driver) -> None:
    job, step = story.hit["time limit"]
    said = "\n".join(story.said[SECOND])
    assert "stopped by SIGUSR1, saved at step" in said
    assert f"Slurm job {job.id} will be started again" in said
    assert any(start >= step for start in story.went_on_from(SECOND))
    assert story.hit["cancel"][0].id == job.id, "the same job, until it was cancelled"


def test_memory_grows_after_the_first_attempt_was_killed(story: Driver, cluster: Cluster) -> None:
    first, second = story.work.attempts(cluster, LEAN)
    assert [cluster.field(job.id, "MinMemoryNode") for job in (first, second)] == ["500M", "700M"]
    assert (first.state, second.state) in (("OUT_OF_MEMORY", "COMPLETED"), ("FAILED", "COMPLETED"))
    logs = (story.work.root / ".snakemake/slurm_logs").rglob(f"{first.id}.log")
    assert "exceeded memory limit" in "".join(path.read_text() for path in logs)


def test_no_job_is_lost_while_the_controller_is_away(story: Driver, cluster: Cluster) -> None:
    job, _ = story.hit["outage"]
    assert cluster.field(job.id, "JobState") == "COMPLETED", "it ran on, and Snakemake waited for it"


@pytest.mark.parametrize("name", RUNS)
def test_numbers_are_those_of_an_undisturbed_run(story: Driver, reference: Reference, name: str) -> None:
    found, expected = story.work.numbers(run_id(name)), reference.numbers(run_id(name))
    assert [key for key in expected if found[key] != expected[key]] == []

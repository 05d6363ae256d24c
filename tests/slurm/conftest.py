"""One private cluster, and one undisturbed local training of every run, for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import PACKAGES, Cluster, missing
from grid import Reference


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker for all that use the cluster, so that there is one."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "cluster" in getattr(item, "fixturenames", ()):
            for mark in (pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of one node with two fake GPUs. Skipped without Slurm, unless Slurm is required."""
    if absent := missing():
        reason = f"no Slurm here ({', '.join(absent)}); Debian: apt-get install {PACKAGES}"
        if os.environ.get("COTDISTILL_REQUIRE_SLURM") == "1":
            pytest.fail(f"COTDISTILL_REQUIRE_SLURM=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    running = Cluster()
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """The undisturbed runs; they have begun."""
    begun = Reference(tmp_path_factory.mktemp("reference"))
    try:
        yield begun
    finally:
        begun.process.kill()
        begun.process.wait()

"""What docs/cluster.md tells to type works as it stands, in the root of a clone, on a cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster import Cluster
from grid import CONFIG, QUICK, ROOT, Checkout, Reference

PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")


def block(heading: str) -> str:
    """The shell commands under a heading of the page."""
    found = re.search(rf"^## {heading}\n.*?```sh\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cluster.md has no commands under '{heading}'"
    return found[1]


@pytest.fixture(scope="module")
def clone(cluster: Cluster, reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone whose config.yaml is one short run."""
    work = Checkout.make(tmp_path_factory.mktemp("clone") / "work", ["mini/dss/0"], cluster)
    values = yaml.safe_load((work.root / CONFIG).read_text())
    values["training"] |= {"steps": 4, "eval_every": 4}
    (work.root / "config.yaml").write_text(yaml.safe_dump(values))
    reference.lend_prepared(work)
    return work


def typed(work: Checkout, cluster: Cluster, commands: str) -> str:
    """Run commands as a shell does; stops at the first that fails."""
    snakemake = cluster.bin / "snakemake"  # the same, looking after its jobs more often
    snakemake.write_text(f'#!/bin/sh\nexec {sys.executable} {QUICK} "$@"\n')
    snakemake.chmod(0o755)
    try:
        done = subprocess.run(
            ["bash", "-ec", commands], cwd=work.root, env=work.environment, text=True, timeout=1200,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    finally:
        snakemake.unlink()
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def walked(clone: Checkout, cluster: Cluster) -> str:
    """The grid, run with the page's commands; what they printed."""
    profile = Path(clone.root, "slurm/config.v9+.yaml")
    text = profile.read_text()
    profile.write_text(re.sub("before-status-checks: [0-9]+", "before-status-checks: 1", text))
    return typed(clone, cluster, block("Each time"))


def test_grid_runs_as_the_page_says(walked: str, clone: Checkout) -> None:
    assert "(100%) done" in walked
    assert (clone.root / "results/cluster/tables/comparison.md").is_file()


def test_it_starts_again_after_a_lost_session(walked: str, clone: Checkout, cluster: Cluster) -> None:
    assert "Nothing to be done" in typed(clone, cluster, block("After a lost session"))


def test_several_gpus_of_one_machine(walked: str, clone: Checkout, cluster: Cluster) -> None:
    assert "Nothing to be done" in typed(clone, cluster, block("One machine, several GPUs"))

"""`training.keep` as Snakemake sees it: what is removed is not missed, and comes back where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def weights(bench: Any) -> list[str]:
    """The checkpoints that still have weights, by folder and run."""
    found = sorted((bench.root / "results/tiny/runs").rglob("model.safetensors"))
    assert not [path for path in found if "state" in path.parts]
    return [path.parent.name for path in found]


@pytest.mark.slow
def test_less_is_kept_missed_by_nobody_and_trained_again_where_needed(grid: Any) -> None:
    assert weights(grid) == ["model", "model_last"] * 4
    before = {run.id: (grid.root / run.files.metrics).read_bytes() for run in grid.runs()}
    grid.configure(training={"keep": "none"})
    plan = grid.plan()
    assert plan["evaluate"] == 4 and not {"train", "prepare"} & set(plan)
    found = grid.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert found.returncode == 0, found.stdout
    assert weights(grid) == [] and grid.plan() == {}
    assert {run.id: (grid.root / run.files.metrics).read_bytes() for run in grid.runs()} == before

    grid.edit("inference/options.py", "from __future__ import annotations\n",
              "from __future__ import annotations\n\nEDITED = 1\n")  # fmt: skip
    assert "train" not in grid.plan(), "Snakemake alone does not know that weights are needed"
    said = grid.run("cotdistill", "plan", "--config", "tiny.yaml").stdout
    assert "4 finished runs must answer test anew, and their weights were removed (training.keep)" in said
    alone = grid.snakemake("--cores", "2", "--until", "evaluate", "--keep-going")
    assert alone.returncode != 0
    log = Path(grid.root, "results/tiny/logs/evaluate", f"{grid.runs()[0].id}.log").read_text()
    assert "test is to be answered anew, and the weights of 'model' were removed" in log
    assert "Traceback" not in log

    found = grid.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert found.returncode == 0, found.stdout
    assert "4 runs are trained again: test is to be answered anew" in found.stdout
    assert weights(grid) == [] and grid.plan() == {}

"""Every shipped config is planned without a network, with and without the published data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.runs.experiment import load
from cotdistill.runs.grid import expand

ROOT = Path(__file__).parents[2]
SHIPPED = ["config.yaml", *sorted(f"config/{path.name}" for path in (ROOT / "config").glob("*.yaml"))]


def test_paper_grid(bench: Any, count_jobs: Callable[[str], dict[str, int]]) -> None:
    found = bench.run("snakemake", "-n")  # no config file named: config.yaml
    assert found.returncode == 0, found.stdout
    assert count_jobs(found.stdout) == {
        "fetch": 1, "prepare": 8, "train": 200, "evaluate": 200, "collect": 1, "compare": 1, "figures": 1,
        "track": 1,
    }  # fmt: skip
    assert not (bench.root / "results").exists(), "looking leaves nothing behind"


@pytest.mark.parametrize("data", [None, "somewhere"], ids=["no data", "data named"])
@pytest.mark.parametrize("config", SHIPPED)
def test_shipped_config(
    config: str, data: str | None, bench: Any, count_jobs: Callable[[str], dict[str, int]]
) -> None:
    named = {"COTDISTILL_DATA": data} if data else {}
    found = bench.run("snakemake", "-n", "--configfile", config, **named)
    assert found.returncode == 0, found.stdout
    counts = count_jobs(found.stdout)
    experiment = load(ROOT / config)
    runs = len(expand(experiment))
    assert counts["train"] == counts["evaluate"] == runs > 0
    assert counts["prepare"] == len(experiment.datasets) * len(experiment.students)
    published = any(entry.adapter != "demo" for entry in experiment.datasets)
    assert counts.get("fetch", 0) == (1 if published and data is None else 0)


def test_config_file_replaces_config_yaml(bench: Any) -> None:
    found = bench.snakemake("-n", "-p")
    for run in bench.runs():
        # config.yaml has device: cuda and steps: 10000; merged in, they would change the hash
        command = f"train --config results/tiny/grid.json --run {run.id} --expect {run.hash} "
        assert command in found.stdout
    assert "results/paper" not in found.stdout


def test_another_data_root_or_student_prepares_again(bench: Any) -> None:
    bench.configure(datasets=["cqa"], students=[{"name": "local", "pretrained": "t5"}], data_root="here")
    prepared = bench.root / "results/tiny/prepared/cqa/local"
    (prepared / "tokenizer").mkdir(parents=True)
    (bench.root / "t5").mkdir()
    for path in ("manifest.json", "train.arrow", "valid.arrow", "test.arrow"):
        (prepared / path).write_text("as if prepared")
    weights = bench.root / "t5" / "model.safetensors"
    weights.write_text("weights")
    target = "results/tiny/prepared/cqa/local/manifest.json"
    touched = bench.snakemake("--touch", "--cores", "1", target)
    assert touched.returncode == 0, touched.stdout
    assert bench.plan(target) == {}
    weights.write_text("others!")
    assert bench.plan(target) == {"prepare": 1}
    weights.write_text("weights")
    assert bench.plan(target) == {}, "the same bytes"
    bench.configure(datasets=["cqa"], students=[{"name": "local", "pretrained": "t5"}], data_root="there")
    assert bench.plan(target) == {"prepare": 1}


def test_lint_is_clean(bench: Any) -> None:
    found = bench.run("snakemake", "--lint")
    assert found.returncode == 0, found.stdout
    assert "Lints for" not in found.stdout


def test_bad_config_stops_before_the_first_job(bench: Any) -> None:
    bench.configure(sedes=[0])
    found = bench.snakemake("--cores", "1")
    assert found.returncode != 0
    assert f"{bench.root / 'tiny.yaml'}: unknown key 'sedes'; did you mean 'seeds'?" in found.stdout
    assert "Traceback" not in found.stdout
    assert not (bench.root / "results").exists()

"""The tiny grid, run to the end by `cotdistill reproduce`: what is there, and what a change redoes."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.report.figures import FIGURES
from cotdistill.runs.experiment import load
from cotdistill.runs.grid import expand

AFTER_RUNS = {"collect": 1, "compare": 1, "figures": 1, "track": 1}


def again(train: int) -> dict[str, int]:
    """The jobs that `train` new trainings bring with them."""
    return {"train": train, "evaluate": train, **AFTER_RUNS}


# --- what is there


def test_every_output_exists(untouched: Any) -> None:
    folder = untouched.root / "results" / "tiny"
    files = ["results.parquet", "results.csv", "history.parquet", "tracked.json", "report.html", "grid.json"]
    files += ["measures.parquet", "examples.parquet", "samples.parquet"]
    files += [f"tables/comparison.{kind}" for kind in ("html", "md", "csv", "tex")]
    files += [f"tables/samples.{kind}" for kind in ("md", "html")]
    files += [f"figures/{name}.{kind}" for name in FIGURES.names() for kind in ("png", "pdf", "txt")]
    for run in untouched.runs():
        names = ["config.json", "history.jsonl", "environment.json", "training.json", "metrics.json",
                 "predictions.jsonl", "model/model.safetensors", "model_last/model.safetensors",
                 "model/tokenizer.json"]  # fmt: skip
        files += [f"runs/{run.id}/{name}" for name in names]
        files += [f"{kind}/{stage}/{run.id}.{end}" for stage in ("train", "evaluate")
                  for kind, end in (("logs", "log"), ("benchmarks", "tsv"))]  # fmt: skip
    assert not [name for name in files if not (folder / name).is_file() or not (folder / name).stat().st_size]
    assert len(FIGURES.names()) >= 3 and len(untouched.runs()) == 4
    assert not list(folder.rglob("state")), "a finished run keeps no training state"


def test_store_holds_every_run(untouched: Any) -> None:
    tracked = json.loads((untouched.root / "results/tiny/tracked.json").read_text())
    assert tracked["added"] == 4 and tracked["missing"] == 0
    connection = sqlite3.connect(untouched.root / "results" / "mlflow.db")
    found = connection.execute("select value from tags where key = 'cotdistill.run'").fetchall()
    connection.close()
    assert {run.id for run in untouched.runs()} <= {value for (value,) in found}


def test_jobs_read_the_frozen_grid(untouched: Any) -> None:
    frozen = expand(load(untouched.root / "results/tiny/grid.json"))
    assert [(run.id, run.hash) for run in frozen] == [(run.id, run.hash) for run in untouched.runs()]
    for run in frozen:
        written = json.loads((untouched.root / run.folder / "config.json").read_text())
        assert written["hash"] == run.hash


def test_report_embeds_figures(untouched: Any) -> None:
    html = (untouched.root / "results/tiny/report.html").read_text(encoding="utf-8")
    for name in FIGURES.names():
        png = (untouched.root / f"results/tiny/figures/{name}.png").read_bytes()
        assert embedded(png, html), f"{name}.png is in the page itself"


def embedded(content: bytes, html: str) -> bool:
    if base64.b64encode(content).decode() in html:
        return True
    # or compressed: undo what stands behind each gzip header
    for text in re.findall(r"base64,(H4sI[A-Za-z0-9+/=]+)", html):
        if gzip.decompress(base64.b64decode(text)) == content:
            return True
    return False


# --- nothing to do


def test_second_reproduce_says_nothing_to_be_done(grid: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs_files(grid)}
    found = grid.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert found.returncode == 0, found.stdout
    assert "nothing to be done: all 4 runs are up to date" in found.stdout
    assert "report   results/tiny/report.html" in found.stdout
    assert {path: path.stat().st_mtime_ns for path in runs_files(grid)} == before


def runs_files(grid: Any) -> list[Path]:
    return sorted(path for path in (grid.root / "results/tiny/runs").rglob("*") if path.is_file())


CHANGES = {
    "a seed more": ({"seeds": [0, 1, 2]}, again(2)),
    "a seed less": ({"seeds": [0]}, AFTER_RUNS),
    "the number of steps": ({"training": {"steps": 6}}, again(4)),
    "memory and time of a job": (
        {"students": [{"name": "mini", "compute": {"mem_mb": 500, "runtime": 5}, "scratch": {
            "d_model": 16, "d_ff": 16, "d_kv": 8, "heads": 2, "layers": 1, "vocabulary": 128}}]},
        {},
    ),
    "the score that options are calibrated by": (
        {"evaluation": {"max_new_tokens": 4, "batch_size": 259, "option_score": "mean"}},
        {"evaluate": 4, **AFTER_RUNS},
    ),
    "the tracking store": ({"tracking": {"uri": "sqlite:///elsewhere.db"}}, {"track": 1}),
    "the baseline": ({"baseline": "mi"}, {"compare": 1, "figures": 1, "track": 1}),
    "the order of methods": ({"methods": [{"name": "mi", "beta": 0.1}, "dss"]}, AFTER_RUNS),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), CHANGES.values(), ids=CHANGES)
def test_changed_setting_redoes(changes: dict[str, Any], expected: dict[str, int], grid: Any) -> None:
    grid.configure(**changes)
    assert grid.plan() == expected


def test_changed_setting_of_a_method_redoes_its_runs(
    grid: Any, count_jobs: Callable[[str], dict[str, int]]
) -> None:
    grid.configure(methods=["dss", {"name": "mi", "beta": 0.2}])
    found = grid.snakemake("-n")
    assert count_jobs(found.stdout) == again(2)
    trained = set(re.findall(r"train (demo/\S+)", found.stdout))
    assert trained == {"demo/mini/mi/gold/1/0", "demo/mini/mi/gold/1/1"}


EVALUATED = {"evaluate": 4, **AFTER_RUNS}

# what is edited in the package, and what that redoes
EDITS = {
    "a loss": ("methods/mi.py", "value * outputs", "2 * value * outputs", again(2)),
    "what a loss computes with": (
        "mutual_information/__init__.py", "import torch\n", "import math\n    import torch\n", again(2)
    ),
    "the training loop": ("training/trainer.py", "class Trainer", "EDITED = 1\n\n\nclass Trainer", again(4)),
    "the protocols": (
        "evaluation/protocols.py", "def count_answers", "EDITED = 1\n\n\ndef count_answers", EVALUATED,
    ),
    "option scoring": (
        "inference/options.py", "class OptionScorer", "EDITED = 1\n\n\nclass OptionScorer", EVALUATED,
    ),
    "calibration": ("evaluation/calibration.py", "def measure", "EDITED = 1\n\n\ndef measure", EVALUATED),
    "a critic": (
        "evaluation/predictability/critic.py", "import math\n", "import cmath\nimport math\n", EVALUATED,
    ),
    "a figure": (
        "report/figures/accuracy.py", "def draw", "EDITED = 1\n\n\ndef draw", {"figures": 1, "track": 1},
    ),
    "the style of figures": (
        "report/figures/_style.py", "import", "import cmath\nimport", {"figures": 1, "track": 1},
    ),
    "the store": ("tracking/mlflow_store.py", "import math", "import math, cmath", {"track": 1}),
    "an adapter": ("data/adapters/demo.py", "WRONG = 0.08", "WRONG = 0.09", {"prepare": 1, **again(4)}),
}  # fmt: skip


@pytest.mark.parametrize(("module", "old", "new", "expected"), EDITS.values(), ids=EDITS)
def test_edited_code_redoes(module: str, old: str, new: str, expected: dict[str, int], grid: Any) -> None:
    grid.edit(module, old, new)
    assert grid.plan() == expected


def test_edits_that_change_no_number_redo_nothing(grid: Any) -> None:
    grid.edit("methods/mi.py", "from __future__", "# a comment\nfrom __future__")
    grid.edit("methods/mi.py", '"""DSS plus', '"""In other words: DSS plus')
    grid.edit("training/trainer.py", '"""Optimise one run', '"""In other words: optimise one run')
    grid.edit("cli/__init__.py", "FAILED = 1", "FAILED = 1\nEDITED = 1")
    grid.edit("data/adapters/cqa.py", "ADAPTER = Cqa()", "ADAPTER = Cqa()\nEDITED = 1")  # not in this grid
    grid.edit("methods/finetune.py", "METHOD = ", "EDITED = 1\nMETHOD = ")
    assert grid.plan() == {}


def test_a_new_method_redoes_nothing(grid: Any) -> None:
    package = grid.root / "lib" / "cotdistill"
    text = (package / "methods" / "finetune.py").read_text()
    (package / "methods" / "own.py").write_text(text.replace('prefix="', 'prefix="own '))
    assert grid.plan() == {}


# what the rule `evaluate` of the copied package asks for, and which runs have no current answers
ASKED = """
import json, yaml
from cotdistill.orchestration.workflow import Workflow
grid = Workflow(yaml.safe_load(open("tiny.yaml")), "tiny.yaml")
memory = grid.request(grid.count_mem_mb_to_evaluate)
print(json.dumps([memory if isinstance(memory, int) else "a function", sorted(grid.unanswered)]))
"""


def test_evaluation_asks_for_little_unless_it_answers_anew(grid: Any) -> None:
    def asked() -> list[Any]:
        command = [sys.executable, "-c", ASKED]
        return json.loads(subprocess.check_output(command, cwd=grid.root, env=grid.environment()))

    assert asked() == [1300, []], "of a finished grid"
    (grid.root / "results/tiny/runs" / RUN / "answers/model.jsonl").unlink()
    assert asked() == ["a function", [RUN]]
    grid.edit("inference/options.py", "class OptionScorer", "EDITED = 1\n\n\nclass OptionScorer")
    assert asked() == ["a function", sorted(run.id for run in grid.runs())]


# --- redone for real


def test_deleted_figure_is_drawn_again_without_training(grid: Any) -> None:
    figure = grid.root / "results/tiny/figures/accuracy.png"
    content, before = figure.read_bytes(), {path: path.stat().st_mtime_ns for path in runs_files(grid)}
    figure.unlink()
    assert grid.plan() == {"figures": 1, "track": 1}
    found = grid.snakemake("--cores", "1", "figures")
    assert found.returncode == 0, found.stdout
    assert figure.read_bytes() == content, "the same figure, byte for byte"
    assert {path: path.stat().st_mtime_ns for path in runs_files(grid)} == before
    assert grid.plan() == {}


RUN = "demo/mini/dss/gold/1/0"


def test_removed_files_of_a_run_are_made_again(grid: Any) -> None:
    run = grid.root / "results/tiny/runs" / RUN
    assert grid.plan(f"results/tiny/runs/{RUN}/metrics.json") == {}
    for name in ("results.csv", "tables/comparison.md"):  # else nothing asks for the runs
        (grid.root / "results/tiny" / name).unlink()
    (run / "metrics.json").unlink()
    assert grid.plan() == {"evaluate": 1, **AFTER_RUNS}
    shutil.rmtree(run)
    assert grid.plan() == again(1)


def test_every_file_of_a_run_is_snakemakes_to_delete(grid: Any) -> None:
    found = grid.snakemake("--cores", "1", "--delete-all-output")
    assert found.returncode == 0, found.stdout
    left = {path.name for path in (grid.root / "results/tiny/runs").rglob("*") if path.is_file()}
    declared = {"config.json", "history.jsonl", "environment.json", "training.json", "metrics.json",
                "predictions.jsonl", "model.safetensors"}  # fmt: skip
    assert not left & declared
    assert grid.plan() == {"prepare": 1, **again(4)}


def test_garbage_is_collected_while_jobs_run(grid: Any) -> None:
    with open(grid.root / "Snakefile", "a") as snakefile:
        snakefile.write('\nonsuccess:\n    import gc\n    print("collected:", gc.isenabled())\n')
    (grid.root / "results/tiny/tables/verdict.txt").unlink()
    found = grid.snakemake("--cores", "1", "compare")
    assert found.returncode == 0, found.stdout
    assert "collected: True" in found.stdout


def test_retrained_run_replaces_the_old_one(grid: Any) -> None:
    grid.configure(methods=["dss", {"name": "mi", "beta": 0.2}], seeds=[0])
    changed = grid.root / "results/tiny/runs/demo/mini/mi/gold/1/0"
    kept = grid.root / "results/tiny/runs/demo/mini/dss/gold/1/0"
    before = (kept / "training.json").stat().st_mtime_ns
    found = grid.snakemake("--cores", "1", "results/tiny/results.csv")
    assert found.returncode == 0, found.stdout
    for name in ("config.json", "training.json", "metrics.json"):
        (wanted,) = (run.hash for run in grid.runs() if run.method.name == "mi")
        assert json.loads((changed / name).read_text())["hash"] == wanted
    assert (kept / "training.json").stat().st_mtime_ns == before
    table = (grid.root / "results/tiny/results.csv").read_text()
    assert len(table.splitlines()) == 3 and '""beta"": 0.2' in table


def test_failing_run_leaves_the_others_finished(grid: Any) -> None:
    broken = grid.root / "own"
    broken.mkdir()
    (broken / "train.jsonl").write_text('{"input": "a", "label": "b", "rationale": "c"}\n{"input": "a"}\n')
    (broken / "test.jsonl").write_text('{"input": "a", "label": "b", "rationale": "c"}\n')
    grid.configure(datasets=["demo", {"name": "own", "adapter": "custom", "path": "own"}])
    metrics = grid.root / "results/tiny/runs/demo/mini/dss/gold/1/0/metrics.json"
    metrics.unlink()  # one sound job is left to do
    shutil.rmtree(grid.root / "results/tiny/tables")
    figure = grid.root / "results/tiny/figures/accuracy.png"
    before = figure.read_bytes()
    found = grid.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "2")
    assert found.returncode == 1
    assert metrics.is_file(), "the sound run goes on"
    assert figure.read_bytes() != before
    lines = found.stdout.splitlines()
    at = lines.index("error: the grid did not finish:")
    assert lines[at + 1] == (
        "results/tiny/logs/prepare/own/mini.log: own/train.jsonl:2: column 'label' is missing (found: input)"
    )
    assert "Traceback" not in found.stdout
    # what is finished is in the tables and figures, and what is missing is named
    table = grid.root / "results/tiny/tables/comparison.md"
    assert "missing: 4 of 8 runs are not in these numbers" in lines
    assert "MISSING: 4 of 8 runs are not in these numbers: own/mini/dss/gold/1/0, " in table.read_text()
    assert "8 runs: 4 done, 4 waiting" in grid.run("cotdistill", "status", "--config", "tiny.yaml").stdout

    # none of that stands as final, whoever is asked for it and however: the inputs are what they were
    grid.configure()
    assert grid.plan() == AFTER_RUNS
    assert grid.plan(str(table.relative_to(grid.root))) == {"collect": 1, "compare": 1}
    again = grid.run("cotdistill", "reproduce", "--config", "tiny.yaml", "--cores", "1")
    assert again.returncode == 0, again.stdout
    assert "MISSING" not in table.read_text()
    assert figure.read_bytes() == before, "the figure of the grid that had not failed yet, byte for byte"
    assert grid.plan() == {}


@pytest.mark.slow
def test_status_tells_the_error_of_a_failed_run(bench: Any) -> None:
    bench.configure(methods=["dss"], seeds=[0], training={"learning_rate": 3e38})
    (run,) = bench.runs()
    failed = bench.snakemake("--cores", "1", str(run.folder / "training.json"))
    assert failed.returncode == 1
    status = bench.run("cotdistill", "status", "--config", "tiny.yaml").stdout
    head, line = status.splitlines()
    assert "1 runs: 1 failed" in head
    assert line.startswith(f"failed  {run.id}  0/4") and "is not finite at step " in line

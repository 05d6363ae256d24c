"""Parts that start commands: seconds before a first step, Snakemake's dry run of large grids, preparing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "cotdistill"]

# the command line as it is, but for one line when the data of the first step are asked for
FIRST_STEP = """
import sys, time
from cotdistill import cli
from cotdistill.data import batches
whole = batches.Order.batch
def batch(order, step):
    print(f"first step {time.time()}", flush=True)
    batches.Order.batch = whole
    return whole(order, step)
batches.Order.batch = batch
sys.exit(cli.main(sys.argv[1:]))
"""

# the command line as it is, but for a count of the texts that a tokenizer is given
TOKENISED = """
import sys
from cotdistill import cli
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast as Fast
whole, texts = Fast.__call__, [0]
def call(tokenizer, text, *arguments, **options):
    texts[0] += len(text) if isinstance(text, list) else 1
    return whole(tokenizer, text, *arguments, **options)
Fast.__call__ = call
code = cli.main(sys.argv[1:])
print(f"tokenised {texts[0]}", flush=True)
sys.exit(code)
"""


def start(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of `cotdistill train` until its first step begins, of `--help`, and of `import torch`."""
    times: dict[str, list[float]] = {"first step": [], "--help": [], "import torch": []}
    config = _write(folder / "start.yaml", _tiny(folder / "start", "demo"))
    run = "demo/tiny/dss/gold/1/0"
    _call([*MODULE, "prepare", "--config", config, "--dataset", "demo", "--student", "tiny"])
    for _ in range(rounds):
        shutil.rmtree(folder / "start" / "tiny" / "runs", ignore_errors=True)
        began = time.time()
        out = _call([sys.executable, "-c", FIRST_STEP, "train", "--config", config, "--run", run])
        line = next(line for line in out.splitlines() if line.startswith("first step "))
        times["first step"].append(float(line.split()[-1]) - began)
        times["--help"].append(_timed([*MODULE, "--help"]))
        times["import torch"].append(_timed([sys.executable, "-c", "import torch"]))
    return {"seconds": times}


def prepare(folder: Path) -> dict[str, Any]:
    """Texts tokenised and seconds spent by preparing cqa, by preparing it again, and by a run after it."""
    config = _write(folder / "prepare.yaml", _tiny(folder / "prepare", "cqa"))
    pair = ["prepare", "--config", config, "--dataset", "cqa", "--student", "tiny"]
    commands = {
        "prepare": pair, "prepare again": pair,
        "train, one step": ["train", "--config", config, "--run", "cqa/tiny/dss/gold/1/0"],
    }  # fmt: skip
    found: dict[str, Any] = {"commands": list(commands), "seconds": [], "texts": []}
    for arguments in commands.values():
        began = time.perf_counter()
        out = _call([sys.executable, "-c", TOKENISED, *arguments])
        found["seconds"].append(time.perf_counter() - began)
        found["texts"].append(int(out.rsplit("tokenised ", 1)[1].split()[0]))
    return found


def workflow(folder: Path, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Seconds of `snakemake -n` for our grid and for a bare Snakefile of as many jobs, by number of jobs."""
    found: dict[str, Any] = {}
    for jobs in sizes:
        runs = (jobs - FIXED) // 2
        grid = {**_tiny(folder / f"grid-{jobs}", "demo"), "seeds": list(range(runs))}
        config = _write(folder / f"grid-{jobs}.yaml", grid)
        bare = folder / f"bare-{jobs}"
        bare.mkdir(exist_ok=True)
        (bare / "Snakefile").write_text(BARE.format(runs=runs))
        theirs = ["-s", str(bare / "Snakefile"), "--directory", str(bare)]
        ours = ["-s", str(ROOT / "Snakefile"), "--configfile", config, "--directory", str(bare)]
        times: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(rounds):
            times["bare"].append(_timed([*SNAKEMAKE, *theirs]))
            times["ours"].append(_timed([*SNAKEMAKE, *ours]))
        found[str(jobs)] = {"seconds": times, "jobs": {"ours": _jobs(ours), "bare": _jobs(theirs)}}
    return found


SNAKEMAKE = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--cores", "1"]
FIXED = 6
"""jobs of a grid beside its runs' two: prepare, collect, compare, figures, track, all"""

BARE = """
SEEDS = range({runs})
rule all:
    default_target: True
    input: "out/table.md", "out/figure.png", "out/tracked.json"
rule prepare:
    output: "out/prepared/manifest.json"
    shell: "touch {{output}}"
rule train:
    input: "out/prepared/manifest.json"
    output: "out/runs/{{seed}}/training.json"
    shell: "touch {{output}}"
rule evaluate:
    input: "out/runs/{{seed}}/training.json"
    output: "out/runs/{{seed}}/metrics.json"
    shell: "touch {{output}}"
rule collect:
    input: expand("out/runs/{{seed}}/metrics.json", seed=SEEDS)
    output: "out/results.parquet"
    shell: "touch {{output}}"
rule compare:
    input: "out/results.parquet"
    output: "out/table.md"
    shell: "touch {{output}}"
rule figures:
    input: "out/results.parquet"
    output: "out/figure.png"
    shell: "touch {{output}}"
rule track:
    input: "out/results.parquet", "out/figure.png"
    output: "out/tracked.json"
    shell: "touch {{output}}"
"""


def _jobs(arguments: list[str]) -> int:
    """The number of jobs that Snakemake plans, from its own table."""
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--cores", "1", *arguments]
    out = _call(command)
    totals = [line.split()[1] for line in out.splitlines() if line.startswith("total ")]
    return int(totals[-1]) if totals else 0


def _tiny(results: Path, data: str) -> dict[str, Any]:
    """A config of one run, an optimiser step of a student from scratch."""
    return {
        "experiment": "tiny", "datasets": [data], "methods": ["dss"], "results": str(results),
        "students": [{"name": "tiny", "scratch": {"vocabulary": 400}}],
        "labels": ["gold"], "fractions": [1.0], "seeds": [0],
        "training": {"steps": 1, "batch_size": 4, "device": "cpu"},
        "evaluation": {"max_new_tokens": 1, "predictability": 0, "rationales": False},
    }  # fmt: skip


def _write(path: Path, values: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    _call(command)
    return time.perf_counter() - began


def _call(command: list[str]) -> str:
    """Standard output of a command that must succeed. Raises RuntimeError with the end of what it said."""
    done = subprocess.run(command, cwd=ROOT, env=environment(), text=True, capture_output=True)
    if done.returncode:
        shown = command[:1] + ["..."] + command[-2:]
        raise RuntimeError(f"{json.dumps(shown)} exits {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    """This process's variables, with the root importable."""
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([before] if before else [])])}

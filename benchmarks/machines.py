"""How far two machines end up apart: the demo's runs on pretended CPUs, beside those of this one as it is.

A pretended CPU is this one with libraries that are told, by variables of theirs, to leave out its newer
instructions: they then sum in another order, as on a CPU that has none of these. Each run is trained by
`cotdistill train` in processes of its own and logs the loss of every step.

    python benchmarks/machines.py --methods dss --seeds 5 --steps 500
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
AGAIN = "as it is, again"
MACHINES: dict[str, dict[str, str]] = {
    "as it is": {},
    AGAIN: {},
    "ATen without AVX2": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen, oneDNN and MKL without AVX": {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE",
    },
}  # fmt: skip
"""what each machine adds to the environment; the others are compared with the first"""


class Trained(NamedTuple):
    """What is compared of a run."""

    losses: list[float]
    """of each step"""
    correct: list[bool]
    """of each test example, by the chosen checkpoint"""
    predictions: list[str]
    weights: np.ndarray
    """(n,) float64: all of the last checkpoint, end to end"""


def main() -> None:
    """Train, compare, and print a line a machine and method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    names = list(list_methods())
    parser.add_argument("--methods", nargs="+", choices=names, default=["dss"], help="(default: dss)")
    parser.add_argument("--seeds", type=count, default=5, help="runs a method (default: %(default)s)")
    parser.add_argument("--steps", type=count, default=500, help="steps a run (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where runs stay, and are found by the next call")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        for method in options.methods:
            for row in measure(folder, method, options.seeds, options.steps):
                print(json.dumps({"method": method, **row}), flush=True)


def count(text: str) -> int:
    """Return the whole number from 1 that a text names. Raises ValueError, which argparse tells."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def read_demo() -> dict[str, Any]:
    """Return the demo's config as it is written."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    return found


def list_methods() -> dict[str, Any]:
    """Return the entries of the demo's methods by their names."""
    methods = read_demo()["methods"]
    return {entry if isinstance(entry, str) else entry["name"]: entry for entry in methods}


def measure(folder: Path, method: str, seeds: int, steps: int) -> list[dict[str, Any]]:
    """Train a method's runs on every machine below `folder`; return a row of numbers a machine.

    The repetition on this machine, which gives the same bits, is of the first seed alone.
    """
    found: dict[str, list[Trained]] = {machine: [] for machine in MACHINES}
    for seed in range(seeds):
        for number, machine in enumerate(MACHINES):
            if machine != AGAIN or seed == 0:
                found[machine].append(train(folder / str(number), machine, method, seed, steps))
    first, *others = found.items()
    return [{"machine": name, **compare(own, first[1][: len(own)])} for name, own in (first, *others)]


def train(folder: Path, machine: str, method: str, seed: int, steps: int) -> Trained:
    """Train and evaluate a run of the demo on a pretended machine, unless it is there."""
    here = folder / f"{method}-{steps}-steps" / str(seed)
    here.mkdir(parents=True, exist_ok=True)
    config = read_demo() | {"results": str(here / "results"), "seeds": [seed]}
    config["methods"] = [list_methods()[method]]
    more = {"steps": steps, "log_every": 1, "warmup_steps": steps // 10, "eval_every": max(1, steps // 5)}
    config["training"] |= more
    config["evaluation"] = {"predictability": 0, "rationales": False}
    path = here / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    run = f"demo/tiny/{method}/gold/1/{seed}"
    done = here / "results" / "demo" / "runs" / run
    if not (done / "metrics.json").exists():
        of_pair, of_run = ["--dataset", "demo", "--student", "tiny"], ["--run", run]
        for stage, rest in (("prepare", of_pair), ("train", of_run), ("evaluate", of_run)):
            command = [sys.executable, "-m", "cotdistill", stage, "--config", str(path), *rest]
            log = here / f"{stage}.log"
            with log.open("w", encoding="utf-8") as output:
                called = subprocess.run(
                    command, env=os.environ | MACHINES[machine], stdout=output, stderr=subprocess.STDOUT
                )
            if called.returncode:
                sys.exit(f"error: {machine}: {' '.join(command)} failed: {log.read_text('utf-8')[-500:]}")
    return read(done)


def read(folder: Path) -> Trained:
    """Read what is compared of a finished run's folder."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text("utf-8").splitlines()]
    answers = [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]
    weights = load_file(folder / "model_last" / "model.safetensors")
    return Trained(
        [line["loss/total"] for line in lines if "loss/total" in line],
        [answer["correct"] for answer in answers],
        [answer["prediction"] for answer in answers],
        np.concatenate([weights[name].astype(float).ravel() for name in sorted(weights)]),
    )


def compare(own: list[Trained], first: list[Trained]) -> dict[str, Any]:
    """Return what differs between the runs of two machines, the same seeds in the same order.

    `first_step` is the least step of which a loss differs, by seed (None: none does), `loss_apart` the median
    over seeds of |difference| / loss at some steps, `weights_apart` the median of |difference| / |weights| at
    the end, `predictions_apart` the percentage of test answers that differ, `accuracies` percentages by seed.
    """
    pairs = list(zip(own, first, strict=True))
    gaps = [np.abs(np.subtract(a.losses, b.losses)) / np.array(b.losses) for a, b in pairs]
    steps = [step for step in (1, 10, 50, 100, 200, 500) if step <= len(gaps[0])]
    differ = [np.flatnonzero(gap) for gap in gaps]
    norms = [np.linalg.norm(a.weights - b.weights) / np.linalg.norm(b.weights) for a, b in pairs]
    answers = [np.mean(np.array(a.predictions) != np.array(b.predictions)) for a, b in pairs]
    accuracies = [100 * statistics.fmean(run.correct) for run in own]
    changes = [x - 100 * statistics.fmean(b.correct) for x, (_, b) in zip(accuracies, pairs, strict=True)]
    return {
        "n": len(own),
        "first_step": [int(places[0]) + 1 if len(places) else None for places in differ],
        "loss_apart": {step: float(np.median([gap[step - 1] for gap in gaps])) for step in steps},
        "weights_apart": float(np.median(norms)),
        "predictions_apart": [round(100 * float(part), 1) for part in answers],
        "accuracies": [round(each, 1) for each in accuracies],
        "mean": round(statistics.fmean(accuracies), 2),
        "sd": round(statistics.stdev(accuracies), 2) if len(own) > 1 else None,
        "change_by_seed": [round(change, 1) for change in changes],
    }


if __name__ == "__main__":
    main()

"""A checkout whose grid runs on the cluster: start Snakemake, see what it and Slurm do, read the numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml
from cluster import Cluster, end_with_parent, until

from cotdistill.runs.lease import find_holder

ROOT = Path(__file__).parents[2]
QUICK = Path(__file__).with_name("quick.py")
CONFIG = "cluster.yaml"
RUNS = ["mini/dss/0", "mini/mi/0", "lean/dss/0"]
SCRATCH = {"d_model": 16, "d_ff": 16, "d_kv": 8, "heads": 2, "layers": 1, "vocabulary": 128}

SETTINGS: dict[str, Any] = {
    "experiment": "cluster",
    "datasets": ["demo"],
    "students": [
        {"name": "mini", "scratch": SCRATCH},
        # training and the Snakemake around it take about 580 MB: the first attempt gets 500, the second 700
        {"name": "lean", "scratch": SCRATCH, "compute": {"mem_mb": 200}},
    ],
    "methods": ["dss", {"name": "mi", "beta": 0.1}, {"name": "broken", "method": "mi", "beta": 1e38}],
    "seeds": [0],
    "training": {"steps": 600, "batch_size": 8, "eval_every": 300, "log_every": 100, "checkpoint_every": 5,
                 "learning_rate": 0.003, "device": "cpu"},
    "evaluation": {"max_new_tokens": 4, "batch_size": 259},
}  # fmt: skip


def run_id(name: str) -> str:
    """The whole id of a run from student/method/seed: `mini/dss/0`."""
    student, method, seed = name.split("/")
    return f"demo/{student}/{method}/gold/1/{seed}"


@dataclass(frozen=True)
class Job:
    """A Slurm job of the grid, as squeue has it."""

    id: str
    state: str
    stage: str
    run: str


@dataclass
class Checkout:
    """A work folder as a fresh clone has it; the package is copied, since others may edit it meanwhile."""

    root: Path
    runs: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, runs: list[str], cluster: Cluster | None = None) -> Checkout:
        """A checkout with a config of these runs, in whose environment the cluster is the only one."""
        root.mkdir(parents=True)
        for name in ("Snakefile", "environment.yml", "config.yaml"):
            shutil.copy2(ROOT / name, root)
        for name in ("config", "workflow", "profiles"):
            shutil.copytree(ROOT / name, root / name)
        for name in ("slurm", "multi-gpu"):
            (root / name).symlink_to(os.readlink(ROOT / name))
        shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        made = cls(root, [run_id(name) for name in runs], surroundings(root / "src", cluster))
        made.configure()
        return made

    def configure(self) -> None:
        """Write the config: the settings, with the cells of the runs."""
        cells = [run.split("/") for run in self.runs]
        include = [{"student": [cell[1]], "method": [cell[2]], "seed": [int(cell[5])]} for cell in cells]
        students = [one for one in SETTINGS["students"] if one["name"] in {cell[1] for cell in cells}]
        values = {**SETTINGS, "students": students, "include": include}
        (self.root / CONFIG).write_text(yaml.safe_dump(values))

    def folder(self, run: str) -> Path:
        """Where a run's outputs are."""
        return self.root / "results/cluster/runs" / run

    def log(self, run: str, stage: str = "train") -> str:
        """What a run's jobs wrote, all attempts."""
        path = self.root / f"results/cluster/logs/{stage}/{run}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def step(self, run: str) -> int:
        """The newest saved step of a run in training; 0 without a state."""
        found = [path.parent.name for path in self.folder(run).glob("state/*/step-*/state.json")]
        return max((int(name.removeprefix("step-")) for name in found), default=0)

    def process(self, run: str) -> int | None:
        """The process that trains a run, by its lease; None where nobody does."""
        found = find_holder(self.folder(run) / "state")
        return found.about.get("pid") if found else None

    def jobs(self, cluster: Cluster, *options: str) -> list[Job]:
        """This checkout's jobs that wait or run; with "--states=all" also those that have ended."""
        found = []
        for number, state, folder, comment in cluster.query("%i|%T|%Z|%k", *options):
            named = re.fullmatch(r"rule_(\w+?)_wildcards_demo_(\w+?)_(\w+?)_gold_1_(\d)", comment)
            if named and folder == str(self.root):
                stage, *parts = named.groups()
                found.append(Job(number, state, stage, run_id("/".join(parts))))
        return sorted(found, key=lambda job: int(job.id))

    def attempts(self, cluster: Cluster, run: str) -> list[Job]:
        """The Slurm jobs that trained a run, in their order. A requeued job is one."""
        every = self.jobs(cluster, "--states=all")
        return [job for job in every if (job.stage, job.run) == ("train", run)]

    def call(self, *command: str) -> str:
        """Run `python <command>` to its end; its output. Fails where it fails."""
        done = subprocess.run(
            [sys.executable, *command], cwd=self.root, env=self.environment, text=True, timeout=900,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, *arguments: str) -> Snakemake:
        """Start `snakemake --profile slurm` for the config."""
        output = (self.root / "snakemake.out").open("a+")
        # the profile is for a cluster that others use too; a test asks Slurm as often as it likes
        command = [sys.executable, str(QUICK), "--profile", "slurm", "--configfile", CONFIG,
                   "--max-status-checks-per-second", "10", "--slurm-init-seconds-before-status-checks", "1",
                   *arguments]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=self.root, env=self.environment, stdout=output, stderr=subprocess.STDOUT, text=True,
            preexec_fn=end_with_parent,
        )  # fmt: skip
        return Snakemake(process, output)

    def numbers(self, run: str) -> dict[str, Any]:
        """All that must be equal to the last bit between two trainings of one config."""
        folder = self.folder(run)
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for line in history:
            line.pop("examples_per_second", None)
        return {
            "model": (folder / "model/model.safetensors").read_bytes(),
            "model_last": (folder / "model_last/model.safetensors").read_bytes(),
            "predictions": (folder / "predictions.jsonl").read_bytes(),
            "history": history,
        }


class Reference:
    """Every run, trained and evaluated undisturbed, in one process, without Snakemake and Slurm.

    It works while the clusters' grids do; whoever asks for its numbers waits for its end.
    """

    def __init__(self, folder: Path) -> None:
        self.work = Checkout.make(folder / "work", RUNS)
        self.output = folder / "reference.out"
        script = Path(__file__).with_name("reference.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), CONFIG, *self.work.runs], cwd=self.work.root,
            env=self.work.environment, stdout=self.output.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def lend_prepared(self, other: Checkout) -> None:
        """Let another checkout begin with the prepared data; Snakemake finds its outputs there."""
        until("the data are prepared", self._prepared, 400)
        folder = "results/cluster/prepared"
        shutil.copytree(self.work.root / folder, other.root / folder)

    def numbers(self, run: str) -> dict[str, Any]:
        """The numbers of a run (see `Checkout.numbers`)."""
        assert self.process.wait(300) == 0, self.output.read_text()
        return self.work.numbers(run)

    def _prepared(self) -> bool:
        assert self.process.poll() in (None, 0), self.output.read_text()
        return "prepared\n" in self.output.read_text()


@dataclass
class Snakemake:
    """A Snakemake at work."""

    process: subprocess.Popen[str]
    output: IO[str]

    @property
    def ended(self) -> bool:
        """Whether it has ended, for whatever reason."""
        return self.process.poll() is not None

    def text(self) -> str:
        """All that it, and those started before it in this checkout, printed."""
        return Path(self.output.name).read_text()

    def wait(self, seconds: float = 1200) -> int:
        """Its exit code."""
        until("snakemake ended", lambda: self.ended, seconds)
        return self.process.returncode


def surroundings(package: Path, cluster: Cluster | None) -> dict[str, str]:
    """The environment of a shell in the checkout: this Python, no GPU, no data, no network."""
    kept = {key: value for key, value in os.environ.items() if key != "COTDISTILL_DATA"}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    slurm = {}
    if cluster:
        path.insert(0, str(cluster.bin))
        slurm["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
    return {**kept, **nowhere, **slurm, "PATH": os.pathsep.join(path), "PYTHONPATH": str(package),
            "OMP_NUM_THREADS": "1"}  # fmt: skip

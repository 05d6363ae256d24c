"""What the Snakefile needs to know of a grid: paths, parameters and resources of each rule.

Kept out of the rule files so that it can be imported and tested without Snakemake.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cotdistill.common.files import digest, write_text
from cotdistill.common.fingerprint import fingerprint
from cotdistill.data import release
from cotdistill.data.adapters import ADAPTERS
from cotdistill.data.prepared import code_of, settings_of
from cotdistill.report.figures import FIGURES
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import Run, expand, prepared_folder

MODULES: dict[str, tuple[str, ...]] = {
    "train": ("training.trainer",),
    "evaluate": ("evaluation.protocols",),
    "judge": ("evaluation.judge",),
    "collect": ("tables.collect",),
    "compare": ("report.comparison",),
    "figures": ("report.figures",),
    "track": ("tracking.mlflow_store",),
}
"""the entry module of each stage but preparing; figures and plug-ins are added by name"""

PASSES = "partial.txt"
"""file of an experiment's folder with a line for each time that partial tables were written"""

OVERHEAD_MB = 300
"""memory of the two Snakemakes that a cluster job runs around its command"""

WILDCARDS = ("dataset", "student", "cell")
"""of a run's rules; `cell` is the rest of its id: Snakemake's work on a job grows with their number"""


def signed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its signature at hand, which Snakemake asks for several times a job."""
    def asked(wildcards: Any, **more: Any) -> Any:
        return function(wildcards, **more)

    asked.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return asked


def wildcards_of(run: Run) -> SimpleNamespace:
    """The wildcards of a run's jobs, as Snakemake would give them."""
    return SimpleNamespace(**dict(zip(WILDCARDS, run.id.split("/", 2), strict=True)))


class Workflow:
    """A grid as Snakemake sees it. `config` is Snakemake's merged config."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        """Raises UserError when anything about the config is wrong: before the first job."""
        self.experiment = parse(json.loads(json.dumps(config)), where)
        self.runs = {run.id: run for run in expand(self.experiment)}
        self.folder = f"{self.experiment.results}/{self.experiment.experiment}"
        self.grid = f"{self.folder}/grid.json"
        self._resolved: dict[tuple[str, ...], dict[str, Any]] = {}
        self.wildcards = WILDCARDS
        self.run = f"{self.folder}/runs/" + "/".join(f"{{{name}}}" for name in WILDCARDS)
        self.prepared = str(prepared_folder(self.experiment, "{dataset}", "{student}"))

    def log(self, stage: str, *wildcards: str) -> str:
        """The log file of a stage's job; `wildcards` are those that tell its jobs apart."""
        return "/".join([self.folder, "logs", stage, *(f"{{{name}}}" for name in wildcards)]) + ".log"

    def benchmark(self, stage: str, *wildcards: str) -> str:
        """The file of wall time and memory of a stage's job."""
        return self.log(stage, *wildcards).replace("/logs/", "/benchmarks/").removesuffix("log") + "tsv"

    def freeze(self) -> None:
        """Write the resolved grid for the jobs to read: editing the config file cannot change them midway."""
        text = json.dumps(self.experiment.model_dump(mode="json"), indent=1)
        path = Path(self.grid)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

    def partial(self) -> None:
        """After a failure: write tables and figures of the finished runs, which name the missing ones."""
        command = [sys.executable, "-m", "cotdistill", "partial", "--config", self.grid]
        subprocess.run(command, stdout=sys.stderr)

    @property
    def passes(self) -> int:
        """Parameter of what `partial` overwrites: how often it did; one more makes the files anew.

        Their time does not tell Snakemake so: it holds a file older than its inputs for up to date while
        the inputs have the checksums that it last saw.
        """
        path = Path(self.folder, PASSES)
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    @property
    def fetched(self) -> list[str]:
        """The mark of the downloaded data, where the grid needs it and no local folder is named."""
        needed = {
            entry.adapter
            for entry in self.experiment.datasets
            if ADAPTERS.module(entry.adapter).ADAPTER.needs_release and entry.path is None
        }
        if not needed or self.experiment.data_root or os.environ.get(release.ENVIRONMENT):
            return []
        root = release.resolve_root()
        marker = root / release.MARKER
        # a folder without the datasets is what a broken download leaves: fetch again
        by_hand = not marker.is_file() and all((root / name).is_dir() for name in needed)
        return [] if by_hand else [str(marker)]

    def data_files(self, wildcards: Any) -> list[str]:
        """Input: the files of a dataset of one's own; a change prepares and trains again."""
        dataset, _ = self._pair(wildcards)
        own = ADAPTERS.module(dataset.adapter).ADAPTER.needs_path
        return sorted(map(str, Path(dataset.path).glob("*.jsonl"))) if own else []

    def of_runs(self, *names: str) -> list[str]:
        """The named files of every run."""
        return [f"{run.folder}/{name}" for run in self.runs.values() for name in names]

    def find(self, wildcards: Any) -> Run:
        """The run that a job's wildcards name."""
        return self.runs[f"{wildcards.dataset}/{wildcards.student}/{wildcards.cell}"]

    def job(self, stage: str, **settings: Any) -> Callable[[Any], dict[str, Any]]:
        """Parameter, one for all that a run's job needs: its id, arguments, and what else has it done again.

        arguments: with the hash of the run's resolved config; code: the fingerprint of the stage's code and
        of the run's method; settings: those of the stage that are not in the hash.
        """
        def parameter(wildcards: Any) -> dict[str, Any]:
            run = self.find(wildcards)
            # evaluating reads from a rationale the label that it states, as the dataset's adapter knows how
            adapter = [f"data.adapters.{run.dataset.adapter}"] if stage == "evaluate" else []
            code = fingerprint(*MODULES[stage], f"methods.{run.method.method}", *adapter)
            arguments = f"--config {self.grid} --run {run.id} --expect {self._hash(run)}"
            return {"id": run.id, "arguments": arguments, "code": code, **settings}

        return signed(parameter)

    def _hash(self, run: Run) -> str:
        """`run.hash`, of settings that are resolved once for all runs which differ in other axes alone."""
        key = (run.dataset.name, run.student.name, run.method.name)
        if key not in self._resolved:
            self._resolved[key] = run.config
        return digest({**self._resolved[key], **run.axes})

    def data_settings(self, wildcards: Any) -> str:
        """Parameter: digest of the settings that the prepared data depend on."""
        return settings_of(*self._pair(wildcards))

    def data_code(self, wildcards: Any) -> str:
        """Parameter: the fingerprint of preparing, and of the dataset's adapter."""
        return code_of(self._pair(wildcards)[0])

    @property
    def judged(self) -> list[str]:
        """The judge's ratings, where a judge is asked."""
        return [f"{self.folder}/judge.json"] if self.experiment.evaluation.judge else []

    @property
    def figures(self) -> list[str]:
        """The registered figures."""
        return FIGURES.names()

    def code(self, stage: str) -> str:
        """Parameter: the fingerprint of a stage that has no wildcards."""
        plugins = [f"report.figures.{name}" for name in self.figures] if stage == "figures" else []
        return fingerprint(*MODULES[stage], *plugins)

    def settings(self, *keys: str) -> str:
        """Parameter: digest of top-level settings (and of the list of runs) that a stage depends on."""
        chosen = self.experiment.model_dump(mode="json", include=set(keys))
        return digest([chosen, list(self.runs)])  # in their order, which is that of tables and figures

    def asks(self, resource: Callable[..., int]) -> Any:
        """A resource (`threads` to `runtime_evaluate`) as rules take it: a number where all runs agree.

        Else a function, which costs Snakemake more; one that knows attempts always is.
        """
        if "attempt" in inspect.signature(resource).parameters:
            return signed(resource)
        # resources depend on dataset and student alone: a run of each pair tells
        runs = {(run.dataset.name, run.student.name): run for run in self.runs.values()}
        values = {resource(wildcards_of(run)) for run in runs.values()}
        return values.pop() if len(values) == 1 else signed(resource)

    def threads(self, wildcards: Any) -> int:
        """CPU threads of one training job."""
        run = self.find(wildcards)
        return run.student.compute.threads * run.training.gpus

    def threads_evaluate(self, wildcards: Any) -> int:
        """CPU threads of one evaluation job, which is one process."""
        return self.find(wildcards).student.compute.threads

    def gpu(self, wildcards: Any) -> int:
        """GPUs of one training job: as many as it has processes where the device is cuda."""
        run = self.find(wildcards)
        return run.training.gpus if run.training.device == "cuda" else 0

    def gpu_evaluate(self, wildcards: Any) -> int:
        """GPUs of one evaluation job."""
        return min(self.gpu(wildcards), 1)

    def mem_mb(self, wildcards: Any, attempt: int) -> int:
        """Memory of one job in MB; grows with the attempt after an out-of-memory failure."""
        return self.find(wildcards).student.compute.mem_mb * attempt + OVERHEAD_MB

    def runtime(self, wildcards: Any, attempt: int) -> int:
        """Time limit of one training job in minutes; grows with the attempt after a time-out."""
        return self.find(wildcards).student.compute.runtime * attempt

    def runtime_evaluate(self, wildcards: Any, attempt: int) -> int:
        """Time limit of one evaluation job: it scores what training answered, and seldom answers anew."""
        return min(max(15, self.runtime(wildcards, 1) // 4) * attempt, self.runtime(wildcards, attempt))

    def _pair(self, wildcards: Any) -> tuple[Any, Any]:
        dataset = next(d for d in self.experiment.datasets if d.name == wildcards.dataset)
        student = next(s for s in self.experiment.students if s.name == wildcards.student)
        return dataset, student

"""Tell the Snakefile what it needs to know of a grid: paths, parameters and resources of each rule.

Kept out of the rule files so that it can be imported and tested without Snakemake.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError, list_some, show_value
from cotdistill.common.files import digest, remove_leftovers, write_text
from cotdistill.common.fingerprint import fingerprint
from cotdistill.config.models import Experiment
from cotdistill.config.yaml_files import read_config_file
from cotdistill.data import release
from cotdistill.data.adapters import ADAPTERS
from cotdistill.orchestration.deleted import (
    COLLECTED,
    PASSES,
    STORES,
    count_lines,
    find_deleted,
    is_store_deleted,
    note,
)
from cotdistill.orchestration.links import avoid_patterns
from cotdistill.orchestration.planning import WILDCARDS, by_number, make_wildcards
from cotdistill.orchestration.snakemake import STOPPED
from cotdistill.report.figures import FIGURES
from cotdistill.runs import answers
from cotdistill.runs.code import (
    Stage,
    compute_code,
    compute_preparation_code,
    digest_preparation_settings,
    digest_warning_settings,
)
from cotdistill.runs.experiment import describe_uncompared, parse
from cotdistill.runs.folder import CHECKPOINTS, RunFiles
from cotdistill.runs.grid import Run, expand, find_prepared_folder
from cotdistill.runs.outputs import list_trained
from cotdistill.students import pretrained

MODULES: dict[str, tuple[str, ...]] = {
    "judge": ("evaluation.judge",),
    "collect": ("tables.collect",),
    "compare": ("report.comparison",),
    "figures": ("report.figures",),
    "track": ("tracking.mlflow_store",),
}
"""the entry module of each stage but preparing; figures and plug-ins are added by name"""

OVERHEAD_MB = 300
"""memory of the two Snakemakes that a cluster job runs around its command"""

EVALUATION_MB, EVALUATION_MINUTES = 1000, 30
"""memory and time limit of a job that counts and measures stored answers: enough for the largest test sets,
as no model is loaded (60 MB and 1 s were measured for 210 examples with rationales)"""


def check_config_files(files: Sequence[Path | str]) -> None:
    """Read config files with our reader, which refuses what Snakemake's takes; end as `read_grid` does."""
    with _end_in_one_line():
        for file in files:
            read_config_file(file)


def check_for_cluster(files: Sequence[Path | str]) -> None:
    """End this process for a path that the shell of Slurm's plugin would read as its own words.

    The plugin puts a job's call, with the paths of the config files and of the Snakefile, between double
    quotes. For a start that sends jobs elsewhere.
    """
    with _end_in_one_line():
        for path in (*map(os.path.abspath, files), os.getcwd()):
            if found := re.search(r'["$`\\]', path):
                raise UserError(
                    f"{show_value(path, 4000)}: on a cluster this path must not hold {found[0]}: rename it"
                )


def read_grid(config: dict[str, Any], files: Sequence[Path | str]) -> Workflow:
    """Return the grid of Snakemake's merged config; end this process with one line where that is wrong."""
    with _end_in_one_line():
        return Workflow(config, where=", ".join(map(str, files)))


@contextlib.contextmanager
def _end_in_one_line() -> Iterator[None]:
    """End this process with the line of a UserError, to which Snakemake would add a traceback."""
    try:
        yield
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


def freeze(experiment: Experiment) -> None:
    """Write an experiment's resolved grid into its folder, where it is not there already."""
    text = json.dumps(experiment.model_dump(mode="json"), indent=1)
    # not through a link that stands for the folder: it leads nowhere until the folder is made
    path = experiment.folder / "grid.json"
    remove_leftovers(path.parent, path.name)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


class Workflow:
    """A grid as Snakemake sees it. `config` is Snakemake's merged config."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        """Raises UserError when anything about the config is wrong: before the first job."""
        self.experiment = parse(config, where)
        self.runs = {run.id: run for run in expand(self.experiment)}
        self.folder = avoid_patterns(self.experiment.folder)
        self.grid = f"{self.folder}/grid.json"
        self.wildcards = WILDCARDS
        self.files = RunFiles(f"{self.folder}/runs/" + "/".join(f"{{{name}}}" for name in WILDCARDS))
        prepared = find_prepared_folder(self.experiment, "{dataset}", "{student}")
        self.prepared = str(Path(self.folder, prepared.relative_to(self.experiment.folder)))
        self._resolved: dict[tuple[str, ...], dict[str, Any]] = {}
        self._codes: dict[tuple[str, ...], str] = {}
        for job in {(run.dataset.name, run.student.name): run for run in self.runs.values()}.values():
            # links to inputs are made now: Snakemake lists a folder once, and would not see later ones
            self.list_data_files(make_wildcards(job))
            self.list_student_files(make_wildcards(job))

    def name_log(self, stage: str, *wildcards: str) -> str:
        """Return the log file of a stage's job; `wildcards` are those that tell its jobs apart."""
        return self._name_file("logs", stage, wildcards) + ".log"

    def name_benchmark(self, stage: str, *wildcards: str) -> str:
        """Return the file of wall time and memory of a stage's job."""
        return self._name_file("benchmarks", stage, wildcards) + ".tsv"

    def _name_file(self, kind: str, stage: str, wildcards: tuple[str, ...]) -> str:
        return "/".join([self.folder, kind, stage, *(f"{{{name}}}" for name in wildcards)])

    def freeze(self) -> None:
        """Write the resolved grid for the jobs to read: editing the config file cannot change them midway."""
        freeze(self.experiment)
        if said := describe_uncompared(self.experiment):
            print(f"warning: {said}", file=sys.stderr, flush=True)

    def write_partial_results(self, logs: list[str]) -> None:
        """Write tables and figures of the finished runs after a failure; they name the missing ones.

        logs: Snakemake's, which tell whether somebody stopped it: then nothing has failed.
        """
        for log in filter(os.path.isfile, logs):
            if STOPPED in Path(log).read_text(encoding="utf-8", errors="replace"):
                return
        command = [sys.executable, "-m", "cotdistill", "partial", "--config", self.grid]
        subprocess.run(command, stdout=sys.stderr)

    @cached_property
    def deleted(self) -> list[str]:
        """What tables that stand were made of and that is gone, such as the metrics of a deleted run."""
        collected = [f"{self.folder}/{name}" for name in COLLECTED]
        made_of = [*self.list_run_files(self.files.metrics), *self.judged, *collected]
        return find_deleted(Path(self.folder), made_of)

    @cached_property
    def passes(self) -> int:
        """Parameter of what `partial` overwrites, and of what is made of deleted files: one more redoes it.

        Their time does not tell Snakemake so: it holds a file older than its inputs for up to date while
        the inputs have the checksums that it last saw.
        """
        return count_lines(Path(self.folder, PASSES)) + bool(self.deleted)

    @cached_property
    def stores(self) -> int:
        """Parameter of tracking: how often the file of the MLflow store was found deleted."""
        return count_lines(Path(self.folder, STORES)) + is_store_deleted(self.experiment)

    def note_deleted(self) -> None:
        """Keep what `passes` and `stores` counted of deleted files, once it is made again."""
        if self.deleted:
            note(Path(self.folder, PASSES), f"made anew, as these were missing: {list_some(self.deleted, 3)}")
        if is_store_deleted(self.experiment):
            note(Path(self.folder, STORES), "written into a new store, as the old one was missing")

    @property
    def fetched(self) -> list[str]:
        """The mark of the downloaded data, where the grid needs it and no local folder is named."""
        needed = {
            entry.adapter
            for entry in self.experiment.datasets
            if ADAPTERS.module(entry.adapter).ADAPTER.needs_release and entry.path is None
        }
        if not needed or self._named_root:
            return []
        root = release.resolve_root()
        marker = root / release.MARKER
        # a folder without the datasets is what a broken download leaves: fetch again
        by_hand = not marker.is_file() and all((root / name).is_dir() for name in needed)
        return [] if by_hand else [avoid_patterns(marker)]

    @property
    def _named_root(self) -> str | None:
        """The folder of the published data, where the config or the environment names one."""
        return self.experiment.data_root or os.environ.get(release.ENVIRONMENT) or None

    def find_data_root(self, wildcards: Any) -> str:
        """Return a parameter: the folder that a published dataset is read below; another one prepares again.

        Prepared data of another folder are the same where their rows are: no run is then trained again.
        """
        dataset, _ = self._pair(wildcards)
        if dataset.path is not None or not ADAPTERS.module(dataset.adapter).ADAPTER.needs_release:
            return ""
        return os.path.abspath(self._named_root or release.DEFAULT_ROOT)

    def list_data_files(self, wildcards: Any) -> list[str]:
        """Return inputs: the files of a dataset of one's own; a change prepares and trains again."""
        dataset, _ = self._pair(wildcards)
        own = ADAPTERS.module(dataset.adapter).ADAPTER.needs_path
        return sorted(map(avoid_patterns, Path(dataset.path).glob("*.jsonl"))) if own else []

    def list_student_files(self, wildcards: Any) -> list[str]:
        """Return inputs: the files of a student in a local folder; a change prepares and trains again."""
        _, student = self._pair(wildcards)
        folder = Path(student.pretrained or "")
        if student.pretrained is None or not folder.is_dir():
            return []
        return sorted({avoid_patterns(path) for pattern in pretrained.FILES for path in folder.glob(pattern)})

    def list_run_files(self, *patterns: Path) -> list[str]:
        """Return the paths of every run for patterns of `files`, such as `files.metrics`."""
        jobs = [vars(make_wildcards(run)) for run in self.runs.values()]
        return [str(pattern).format(**job) for job in jobs for pattern in patterns]

    def find_run(self, wildcards: Any) -> Run:
        """Return the run that a job's wildcards name."""
        return self.runs[f"{wildcards.dataset}/{wildcards.student}/{wildcards.rest}"]

    def hash_run(self, wildcards: Any) -> str:
        """Return a parameter: `Run.hash`, the digest of the settings that the run's numbers depend on.

        They are resolved once for all runs which differ in other axes alone.
        """
        run = self.find_run(wildcards)
        key = (run.dataset.name, run.student.name, run.method.name)
        if key not in self._resolved:
            self._resolved[key] = run.config
        return digest({**self._resolved[key], **run.axes})

    def fingerprint_training(self, wildcards: Any) -> str:
        """Return a parameter: the fingerprint of the code that trains the run."""
        return self._fingerprint("train", wildcards)

    def fingerprint_evaluation(self, wildcards: Any) -> str:
        """Return a parameter: the fingerprint of the code that answers test and evaluates the answers."""
        return self._fingerprint("evaluate", wildcards)

    def _fingerprint(self, stage: Stage, wildcards: Any) -> str:
        run = self.find_run(wildcards)
        key = (stage, run.dataset.name, run.student.name, run.method.name)
        if key not in self._codes:
            self._codes[key] = compute_code(stage, run)
        return self._codes[key]

    def find_kept(self, wildcards: Any) -> str:
        """Return a parameter: which checkpoints stay; evaluating anew removes those that no longer do."""
        return self.find_run(wildcards).training.keep

    def digest_data_settings(self, wildcards: Any) -> str:
        """Return a parameter: the digest of the settings that the prepared data depend on."""
        return digest_preparation_settings(*self._pair(wildcards))

    def digest_warning_settings(self, wildcards: Any) -> str:
        """Return a parameter: the digest of the settings that warnings on the prepared data depend on."""
        return self._warning_settings[wildcards.dataset, wildcards.student]

    @cached_property
    def _warning_settings(self) -> dict[tuple[str, str], str]:
        """The same for every pair, in one pass over the runs."""
        found: dict[tuple[str, str], dict[tuple[str, str], Run]] = {}
        for run in self.runs.values():
            pair = found.setdefault((run.dataset.name, run.student.name), {})
            pair.setdefault((run.method.name, run.labels), run)
        return {pair: digest_warning_settings(runs.values()) for pair, runs in found.items()}

    def fingerprint_preparation(self, wildcards: Any) -> str:
        """Return a parameter: the fingerprint of preparing, and of the dataset's adapter."""
        return compute_preparation_code(*self._pair(wildcards))

    @property
    def judged(self) -> list[str]:
        """The judge's ratings, where a judge is asked."""
        return [f"{self.folder}/judge.json"] if self.experiment.evaluation.judge else []

    @property
    def figures(self) -> list[str]:
        """The registered figures."""
        return FIGURES.names()

    def fingerprint_stage(self, stage: str) -> str:
        """Return a parameter: the fingerprint of a stage that has no wildcards."""
        plugins = [f"report.figures.{name}" for name in self.figures] if stage == "figures" else []
        return fingerprint(*MODULES[stage], *plugins)

    def digest_settings(self, *keys: str) -> str:
        """Return a parameter: the digest of the runs' ids and of top-level settings that a stage reads."""
        chosen = self.experiment.model_dump(mode="json", include=set(keys))
        return digest([chosen, list(self.runs)])  # in their order, which is that of tables and figures

    @cached_property
    def unanswered(self) -> frozenset[str]:
        """The ids of runs that are trained under this config and have no test answers by today's code.

        Evaluating one of these answers test anew. Of all others the training job stores the answers. Those
        whose weights were removed are none: they can only be trained again.
        """
        trained = list_trained(self.runs.values())
        return frozenset(
            run.id for run in trained
            if not all(answers.is_key_current(run, checkpoint) for checkpoint in CHECKPOINTS)
            and not answers.list_lost(run)
        )  # fmt: skip

    def request(self, resource: Callable[..., int]) -> int | Callable[..., int]:
        """Return a resource as a rule takes it: a number where all jobs agree, else a function.

        resource: one of the methods `count_...`.
        """
        # resources depend on these alone: a run of each kind tells
        kinds = {(run.dataset.name, run.student.name, run.id in self.unanswered): run
                 for run in self.runs.values()}  # fmt: skip
        return by_number(resource, [make_wildcards(run) for run in kinds.values()])

    def count_threads(self, wildcards: Any) -> int:
        """Return the CPU threads of one training job."""
        run = self.find_run(wildcards)
        return run.student.compute.threads * run.training.gpus

    def count_gpus(self, wildcards: Any) -> int:
        """Return the GPUs of one training job: as many as it has processes where the device is cuda."""
        run = self.find_run(wildcards)
        return run.training.gpus if run.training.device == "cuda" else 0

    def count_mem_mb(self, wildcards: Any, attempt: int) -> int:
        """Return the memory of one training job in MB; more for each attempt: it may have been too little."""
        return self.find_run(wildcards).student.compute.mem_mb * attempt + OVERHEAD_MB

    def count_minutes(self, wildcards: Any, attempt: int) -> int:
        """Return the time limit of one training job in minutes; more for each attempt."""
        return self.find_run(wildcards).student.compute.runtime * attempt

    def count_threads_to_evaluate(self, wildcards: Any) -> int:
        """Return the CPU threads of one evaluation job, which is one process."""
        run = self.find_run(wildcards)
        return run.student.compute.threads if run.id in self.unanswered else 1

    def count_gpus_to_evaluate(self, wildcards: Any) -> int:
        """Return the GPUs of one evaluation job: none where the answers are stored."""
        needed = self.find_run(wildcards).id in self.unanswered
        return min(self.count_gpus(wildcards), 1) if needed else 0

    def count_mem_mb_to_evaluate(self, wildcards: Any, attempt: int) -> int:
        """Return the memory of one evaluation job in MB: the student's where it has to answer test."""
        if self.find_run(wildcards).id in self.unanswered:
            return self.count_mem_mb(wildcards, attempt)
        return EVALUATION_MB + OVERHEAD_MB

    def count_minutes_to_evaluate(self, wildcards: Any, attempt: int) -> int:
        """Return the time limit of one evaluation job in minutes: longer where it has to answer test."""
        if self.find_run(wildcards).id in self.unanswered:
            longest = self.count_minutes(wildcards, attempt)
            return min(max(15, self.count_minutes(wildcards, 1) // 4) * attempt, longest)
        return EVALUATION_MINUTES

    def _pair(self, wildcards: Any) -> tuple[Any, Any]:
        dataset = next(d for d in self.experiment.datasets if d.name == wildcards.dataset)
        student = next(s for s in self.experiment.students if s.name == wildcards.student)
        return dataset, student

"""Hold what the checks know: the grid, the profile, and the request of the largest job."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.orchestration.doctor.profile import Profile
from cotdistill.orchestration.planning import make_wildcards
from cotdistill.orchestration.workflow import Workflow
from cotdistill.runs.grid import Run

NAME = "cotdistill-doctor"
"""what the doctor's own jobs are called, to tell them from a grid's"""
USER = str(os.getuid())


@dataclass
class Site:
    """A grid on a machine. `no_slurm` and `refused` say why checks that follow would be in vain."""

    config: str
    grid: Workflow
    profile: Profile
    no_slurm: str
    """why Slurm is not looked at; empty where it is"""
    job_timeout: float
    asked: bool = False
    """whether the profile was named: Slurm is meant to be used, so that its absence is a fault"""
    refused: str = ""
    """why no job is submitted: Slurm refused the request already"""

    @property
    def experiment(self) -> Experiment:
        """The grid's settings."""
        return self.grid.experiment

    @cached_property
    def largest(self) -> Run:
        """The run whose jobs ask for the most."""
        def size(run: Run) -> tuple[int, int, int, int]:
            asks = self.own(run)
            return asks["gpu"], asks["mem_mb"], asks["runtime"], asks["threads"]

        return max(self.grid.runs.values(), key=size)

    def own(self, run: Run, attempt: int = 1) -> dict[str, int]:
        """Return what the train rule itself asks for a run."""
        job = make_wildcards(run)
        threads = self.grid.count_threads(job)
        return {
            "threads": threads, "cpus_per_task": threads, "gpu": self.grid.count_gpus(job),
            "mem_mb": self.grid.count_mem_mb(job, attempt), "runtime": self.grid.count_minutes(job, attempt),
        }  # fmt: skip

    def asks(self, attempt: int = 1) -> dict[str, Any]:
        """Return the largest job's resources, with what the profile adds or replaces."""
        own = self.own(self.largest, attempt)
        return self.profile.resources("train", own)

    @property
    def gpus(self) -> int:
        """GPUs that the largest job asks for, in either form."""
        asks = self.asks()
        last = str(asks.get("gres") or "").rpartition(":")[2]
        if "gpu" in str(asks.get("gres") or ""):
            return int(last) if last.isascii() and last.isdigit() else 1
        return int(asks.get("gpu") or 0)

    def where(self) -> list[str]:
        """Return sbatch's arguments for where the largest job runs: all but memory, time and CPUs.

        Raises UserError where the profile's slurm_extra cannot be read.
        """
        asks, settings = self.asks(), self.profile.settings
        account = str(asks.get("slurm_account") or "").replace(",", " ").split()
        words = [f"--account={account[0]}"] if account else []
        flags = {"partition": asks.get("slurm_partition"), "constraint": asks.get("constraint"),
                 "qos": settings.get("slurm-qos") or asks.get("qos"),
                 "reservation": settings.get("slurm-reservation"), "clusters": asks.get("cluster"),
                 "nodes": asks.get("nodes"), "gres": asks.get("gres")}  # fmt: skip
        words += [f"--{flag}={value}" for flag, value in flags.items() if value]
        model = f"{asks['gpu_model']}:" if asks.get("gpu_model") else ""
        words += [f"--gpus={model}{asks['gpu']}"] if asks.get("gpu") else []
        try:
            return [*words, *shlex.split(str(asks.get("slurm_extra") or ""))]
        except ValueError as error:
            raise UserError(f"slurm_extra cannot be read: {asks['slurm_extra']} ({error})") from error

    def request(self, attempt: int = 1) -> list[str]:
        """Return sbatch's arguments for the largest job, as Snakemake's Slurm plugin makes them."""
        asks = self.asks(attempt)
        cpus = asks["cpus_per_task"]
        words = [f"--mem={asks['mem_mb']}", f"--time={asks['runtime']}"]
        words += [f"--cpus-per-task={max(1, cpus)}"] if isinstance(cpus, int) and cpus >= 0 else []
        return [*words, *self.where()]


def has_slurm() -> bool:
    """Whether this machine can submit to Slurm at all."""
    return shutil.which("sbatch") is not None

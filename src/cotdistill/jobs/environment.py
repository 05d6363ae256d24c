"""Describe where and with what a run was made: versions, hardware, commit, data, time and memory."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cotdistill.jobs.hardware import describe_hardware, is_same_kind
from cotdistill.runs.documents import Environment
from cotdistill.runs.grid import Run

PACKAGES = ("cotdistill", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow")


def describe(
    run: Run, device: str, engine: str, manifest: dict[str, Any], *, seconds: float, started_at: str | None,
    machines: Sequence[dict[str, Any]],
) -> Environment:  # fmt: skip
    """Return the environment of a run whose training ends now: this process, its machine and its inputs.

    device: 'cpu' or 'cuda'; manifest: of the prepared data; seconds: of training; started_at: ISO date and
    time, None for now; machines: of the starts of the run, see `jobs.hardware`.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    hardware = describe_hardware(device, run.training.gpus)
    if earlier := [each for each in machines if not is_same_kind(each, hardware)]:
        hardware["earlier"] = earlier
    return Environment(
        run=run.id, hash=run.hash, versions=versions, hardware=hardware, device=device, engine=engine,
        git_commit=find_git_commit(), data_checksum=manifest["checksum"],
        split_ids=manifest["split_ids"], student=manifest["student"],
        wall_s=round(seconds, 3), peak_memory_mb=round(measure_peak_memory(device), 1),
        started_at=started_at or now, finished_at=now,
    )  # fmt: skip


def find_git_commit() -> str | None:
    """Return the commit of the package's checkout, `-dirty` where tracked files differ; None without git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def measure_peak_memory(device: str) -> float:
    """Return the largest memory of this process so far, in MB: allocated on a GPU, resident on a CPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

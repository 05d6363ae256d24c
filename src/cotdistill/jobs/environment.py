"""Where and with what a run was made: versions, hardware, commit, data, time and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("cotdistill", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow")


def describe(device: str, processes: int, threads: int) -> dict[str, Any]:
    """Versions, hardware and git commit, as plain values."""
    import torch

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    hardware = {
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "processes": processes,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }
    return {"versions": versions, "hardware": hardware, "device": device, "git_commit": git_commit()}


def git_commit() -> str | None:
    """Commit of the package's checkout, `-dirty` where tracked files differ; None without git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def peak_memory_mb(device: str) -> float:
    """Largest memory of this process so far, in MB: allocated on a GPU, resident on a CPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")

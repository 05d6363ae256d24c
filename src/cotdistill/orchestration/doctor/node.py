"""Write to a file what a node has: the doctor's part on it. Only the standard library at first.

`python -m cotdistill.orchestration.doctor.node FILE [--torch] [PATH ...]`; the paths are those that a run
will read.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from typing import Any


def main(arguments: list[str]) -> None:
    """Write the file at once, and again when torch has answered, which takes long where files are far."""
    target, torch, paths = arguments[0], "--torch" in arguments, [a for a in arguments[1:] if a != "--torch"]
    seen: dict[str, Any] = {
        "host": platform.node(),
        "python": platform.python_version(),
        "missing": [path for path in paths if not os.path.exists(path)],
        "command": shutil.which("cotdistill"),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": list_gpus(),
        "done": not torch,
    }
    _write(target, seen)
    if torch:
        _write(target, {**seen, "torch": _describe_torch(), "done": True})


def list_gpus() -> list[str] | None:
    """Return the GPUs that the driver lists, or None where it does not answer."""
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.decode("utf-8", errors="replace").splitlines()
    # "GPU 0: NVIDIA H200 (UUID: ...)": the number is another in each job, the UUID is nobody's business
    named = [line.partition(":")[2].partition("(UUID")[0] for line in lines if line.startswith("GPU ")]
    return [name.strip() for name in named if name.strip()]


def _describe_torch() -> dict[str, Any]:
    try:
        import torch

        return {"version": torch.__version__, "built": torch.version.cuda or torch.version.hip,
                "count": torch.cuda.device_count() if torch.cuda.is_available() else 0}  # fmt: skip
    except Exception as error:  # noqa: BLE001 a broken installation raises whatever its loader raises
        return {"error": f"{type(error).__name__}: {error}"}


def _write(target: str, seen: dict[str, Any]) -> None:
    """Write in one move, so that no half is read; with the node's time, beside the file server's."""
    with open(f"{target}.part", "w", encoding="utf-8") as handle:
        json.dump({**seen, "time": time.time()}, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(f"{target}.part", target)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print("usage: python node.py FILE [--torch] [PATH ...]", file=sys.stderr)
        sys.exit(2)
    main(sys.argv[1:])

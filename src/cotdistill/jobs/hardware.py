"""Describe what decides the last bits of a run: the processor, and the kernels that libraries chose for it.

Libraries sum in the order that suits the instructions they find, and every order rounds otherwise. Two runs
with the same record here can be compared bit for bit; where records differ, numbers may.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
ID_KEYS = ("vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU architecture", "CPU part")
"""of /proc/cpuinfo, on x86 and Arm: what tells CPUs apart that a virtual machine gives one name"""
INSTRUCTIONS = re.compile(r"sse4_[12]|avx.*|fma|f16c|amx.*|asimd.*|sve.*|bf16|i8mm")
"""the flags of /proc/cpuinfo that kernels are chosen by"""
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "MKL_DYNAMIC", "OMP_DYNAMIC",
    "OPENBLAS_CORETYPE", "GLIBC_TUNABLES", "LD_PRELOAD", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
"""what the environment can say of kernels; threads are not among them, as the config's count holds"""
LIBRARIES = re.compile(r"Math Kernel Library|MKL-DNN|oneDNN|OpenMP|OpenBLAS|Eigen|LAPACK")
"""the lines of torch's own account of its build that name what it computes with"""


def describe_hardware(device: str, processes: int) -> dict[str, Any]:
    """Return the machine, and under `kernels` what its numbers' rounding depends on, as this process has it.

    device: 'cpu' or 'cuda'; processes: those of the run.
    """
    import torch

    lines = _read_cpu_info()
    return {
        "machine": platform.machine(),
        "cpu": lines.get("model name") or platform.processor(),
        "cpu_id": {key: lines[key] for key in ID_KEYS if key in lines},
        "instructions": _list_instructions(lines),
        "caches": _list_caches(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "processes": processes,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "kernels": describe_kernels(device),
    }


def is_same_kind(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two machines have the same CPU and kernels, so that they round alike."""
    return all(first.get(key) == second.get(key) for key in ("cpu", "cpu_id", "kernels"))


def describe_kernels(device: str) -> dict[str, Any]:
    """Return the choices that this process's libraries compute with; what a build has not is absent.

    `aten` is the instruction set that torch's own kernels were chosen for. oneDNN and MKL choose by the CPU's
    `instructions`, up to what `variables` allow, and do not say what they chose.
    """
    import torch

    build = torch.__config__.show()
    blas = re.search(r"BLAS_INFO=([^,\s]+)", build)
    found: dict[str, Any] = {
        "aten": torch.backends.cpu.get_cpu_capability(),
        "blas": blas[1] if blas else None,
        "libraries": [line.strip(" -") for line in build.splitlines() if LIBRARIES.search(line[:80])],
        "onednn": bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_products": torch.get_float32_matmul_precision(),
        "variables": {name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
    }
    return found | ({"cuda": _describe_cuda()} if device == "cuda" else {})


def _describe_cuda() -> dict[str, Any]:
    import torch

    return {
        "name": torch.cuda.get_device_name(),
        "capability": list(torch.cuda.get_device_capability()),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "products_tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def _read_cpu_info() -> dict[str, str]:
    """Return what Linux tells of the first processor, by its own keys; {} elsewhere."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def _list_instructions(lines: dict[str, str]) -> list[str]:
    flags = (lines.get("flags") or lines.get("Features") or "").split()
    return sorted(flag for flag in set(flags) if INSTRUCTIONS.fullmatch(flag))


def _list_caches() -> list[str]:
    """Return the first core's caches, such as `L1 Data 32K`: some products are cut into blocks by them."""
    found = []
    for folder in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        found.append(f"L{level} {kind} {size}")
    return found

"""Tell what this process may use of its machine: cores and memory, by affinity, control groups and limits."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

from cotdistill.common.text import parse_whole_number

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def count_cores() -> int:
    """Return how many cores this process may use: its affinity, control group's share, Slurm job's."""
    found = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    given = parse_whole_number(os.environ.get("SLURM_CPUS_ON_NODE", ""))
    if given and "SLURM_JOB_ID" in os.environ:
        found.append(given)  # a cluster that does not bind processes to cores says it here alone
    for folder in _list_groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:  # the first version of control groups
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if (part := parse_whole_number(quota)) and (whole := parse_whole_number(period)):
            found.append(math.ceil(part / whole))
    return max(1, min(found))


def measure_memory_mb() -> int | None:
    """Return how many MB of memory this process may have, used or free; None where the system does not say.

    The least of the machine's, the control group's (a Slurm job's, a container's) and `ulimit -v`.
    """
    found = []
    if "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in _list_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if limit := parse_whole_number(_read(folder / name)):
                found.append(limit)
    limits = [limit // 2**20 for limit in found]
    if (space := measure_address_space_mb()) is not None:
        limits.append(space)
    return min(limits) if limits else None


def measure_address_space_mb() -> int | None:
    """Return the MB of addresses that `ulimit -v` allows this process; None where it sets no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit // 2**20


def _list_groups(controller: str) -> list[Path]:
    """Return the folders of this process's control group and of those around it, as each may have a limit."""
    folders: list[Path] = []
    for line in _read(MEMBERSHIP).splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers == "" or controller in controllers.split(","):
            root = CGROUPS / controller if controllers else CGROUPS
            group = Path(path.lstrip("/"))
            folders += [root / part for part in (group, *group.parents)]
    return folders


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

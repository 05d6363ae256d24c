"""Check this machine: students and data without the network, a stale lock, a GPU where no Slurm is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cotdistill.common.errors import UserError, list_some
from cotdistill.config.models import DatasetEntry, StudentEntry, is_hub_id
from cotdistill.data import release
from cotdistill.data.adapters import ADAPTERS
from cotdistill.orchestration.doctor import node
from cotdistill.orchestration.doctor.finding import Finding
from cotdistill.students.pretrained import TOKENIZERS, check_folder
from cotdistill.students.stored import find_files

if TYPE_CHECKING:
    from cotdistill.orchestration.doctor.site import Site


def find_checkpoints(site: Site) -> dict[str, Path | None]:
    """Return the local folder of each pretrained student; None where there is none yet."""
    return {entry.name: find_checkpoint(entry) for entry in site.experiment.students if entry.pretrained}


def find_checkpoint(student: StudentEntry) -> Path | None:
    """Return the student's own folder, or its snapshot in the hub's cache. Uses no network."""
    name = str(student.pretrained)
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", revision=student.revision)
    except (OSError, ValueError):  # a name that the hub's rules forbid, or a cache that cannot be read
        return None
    return Path(found).parent if isinstance(found, str) else None


def check_students(site: Site) -> Iterator[Finding]:
    """Check that each pretrained student lies here whole, and is one that no job would refuse."""
    folders = find_checkpoints(site)
    for entry in site.experiment.students:
        if entry.scratch is not None:
            yield Finding("ok", "student", f"{entry.name}: built from scratch")
            continue
        folder, name = folders[entry.name], str(entry.pretrained)
        own = not is_hub_id(name) or folder == Path(name)
        if not own and (lacking := _find_lacking(folder) if folder else "no copy in the hub's cache"):
            yield _to_fetch(site, entry, lacking)
            continue
        fault = _find_fault(folder, name) if folder else f"{name}: no such folder"
        if fault:
            yield Finding("FAIL", "student", f"{entry.name}: {fault}",
                          f"correct 'pretrained' in {site.config}: a T5 folder or owner/name")  # fmt: skip
        else:
            yield Finding("ok", "student", f"{entry.name}: {folder}")


def _to_fetch(site: Site, entry: StudentEntry, lacking: str) -> Finding:
    call = f"cotdistill prepare --config {site.config} --dataset {site.experiment.datasets[0].name}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding("FAIL", "student", f"{entry.name}: {lacking}, and HF_HUB_OFFLINE forbids to fetch it",
                       f"unset HF_HUB_OFFLINE and run {call} --student {entry.name}")  # fmt: skip
    text = f"{entry.name}: {lacking}; the prepare job fetches it, which needs a network on this machine"
    return Finding("warn", "student", text, f"to do it now: {call} --student {entry.name}")


def _find_lacking(folder: Path) -> str:
    """Return what a snapshot of the hub's cache lacks where fetching was cut off; empty where it is whole."""
    if not (folder / "config.json").is_file():
        return f"{folder / 'config.json'}: no such file"
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return f"{folder} holds no tokenizer ({' or '.join(TOKENIZERS)})"
    try:
        find_files(folder)
    except UserError as error:
        return str(error)
    return ""


def _find_fault(folder: Path, name: str) -> str:
    """Return why preparing would refuse a student's folder; empty where it would not."""
    try:
        check_folder(folder, name)
    except UserError as error:
        return str(error).removeprefix(f"student '{name}': ")
    return ""


def check_data(site: Site) -> Iterator[Finding]:
    """Check that each dataset's files are here, or will be fetched."""
    absent = []
    for entry in site.experiment.datasets:
        finding = _describe_dataset(site, entry)
        if finding is None:
            absent.append(entry.name)
        else:
            yield finding
    if absent:
        text = f"{', '.join(absent)}: the fetch job downloads them, which needs a network on this machine"
        yield Finding("warn", "data", text, f"to do it now: cotdistill fetch --config {site.config}")


def _describe_dataset(site: Site, entry: DatasetEntry) -> Finding | None:
    """Return how a dataset stands; None where the workflow will fetch it."""
    adapter = ADAPTERS.module(entry.adapter).ADAPTER
    if adapter.needs_path:
        here = Path(str(entry.path))
        missing = [name for name in ("train.jsonl", "test.jsonl") if not (here / name).is_file()]
        if missing:
            return Finding("FAIL", "data", f"{entry.name}: {here} lacks {' and '.join(missing)}",
                           f"correct the dataset's path in {site.config} (it counts from here)")  # fmt: skip
        return Finding("ok", "data", f"{entry.name}: {entry.path}")
    if not adapter.needs_release:
        return Finding("ok", "data", f"{entry.name}: needs no files")
    root = release.resolve_root(entry.path or site.experiment.data_root)
    folder = root / entry.adapter
    if (folder / f"{entry.adapter}_train.json").is_file():
        return Finding("ok", "data", f"{entry.name}: {folder}")
    if entry.path is None and site.grid.fetched:
        return None
    advice = f"cotdistill fetch --config {site.config} --root {root}, or correct the folder's name"
    return Finding("FAIL", "data", f"{entry.name}: no {entry.adapter}_train.json in {folder}", advice)


def check_lock(site: Site) -> Iterator[Finding]:
    """Look for a lock of a Snakemake that was killed: the next one would refuse to start."""
    locks = sorted(Path(".snakemake", "locks").glob("*.lock"))
    running = find_snakemakes()
    if running:
        yield Finding("ok", "lock", f"a snakemake works in this folder (process {running[0]})")
    elif locks:
        yield Finding("warn", "lock", "locked, and no snakemake of this machine works in this folder",
                      "if none does on another machine either: snakemake --unlock")  # fmt: skip
    else:
        yield Finding("ok", "lock", "none")


def find_snakemakes() -> list[int]:
    """Return the Snakemakes of this machine that work in this folder, without those of single jobs."""
    import psutil

    here, found = os.path.realpath("."), []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        names = [os.path.basename(word) for word in words[:6]]
        # a job is a Snakemake too, and says so: --mode remote, or --mode subprocess
        if "snakemake" in names and "--mode" not in words and process.info["cwd"] == here:
            found.append(int(process.info["pid"]))
    return found


def check_gpu(site: Site) -> Iterator[Finding]:
    """Check that the GPUs which jobs ask for are here, where no Slurm is and the jobs run here."""
    if not site.no_slurm or (site.asked and site.profile.executor == "slurm"):
        return
    need, found = site.gpus, node.list_gpus()
    has = f"{len(found)} here ({list_some(found, 4)})" if found else "none here"
    counted = site.profile.local_gpus
    if need > len(found or ()):
        yield Finding("FAIL", "gpu", f"{need} asked for by one job, {has}",
                      f"run where a GPU is, or set training.device: cpu in {site.config}")  # fmt: skip
    elif need and counted > len(found or ()):
        yield Finding("warn", "gpu", f"the profile counts {counted}, {has}: jobs would wait for one another",
                      f"set resources: [gpu={len(found or ())}] in {site.profile.path}")  # fmt: skip
    else:
        device = site.largest.training.device
        yield Finding("ok", "gpu", f"{need or 'none'} asked for (training.device: {device}), {has}")

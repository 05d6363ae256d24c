"""Check a node by one small real job: the results folder, this Python, the GPU and the clock."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json
from cotdistill.orchestration.doctor import shell
from cotdistill.orchestration.doctor.finding import Finding, make_printable
from cotdistill.orchestration.doctor.local import find_checkpoints
from cotdistill.orchestration.doctor.shell import run
from cotdistill.orchestration.doctor.site import NAME, USER, Site

MEMORY = 4000
"""MB of the job, where a run does not ask for less: importing torch takes about 1000"""
MINUTES = 10
ASK = 3.0
"""seconds between questions to the queue"""
GRACE = 15.0
"""seconds until a file that a node wrote must be seen here, after its job is gone"""
SKEW = 5.0
"""seconds by which clocks may differ"""


@dataclass
class Job:
    """The doctor's job, from its submission to its end."""

    name: str
    submitted: float
    state: str = ""
    reason: str = ""
    node: str = ""
    number: str = "?"
    gone: float | None = None
    """when it was seen to be no longer in the queue"""


def check_node(site: Site) -> Iterator[Finding]:
    """Submit the job, wait for its file, and say what it saw."""
    if site.refused or site.job_timeout <= 0:
        yield Finding("skip", "node", f"no job was tried: {site.refused or 'the time for it is 0'}")
        return
    results = Path(site.experiment.results)
    try:
        with _make_folder(results) as folder:
            yield from _visit(site, folder)
    except OSError as error:
        text = f"cannot write {results}: {error.strerror or error}"
        yield Finding("FAIL", "node", text, f"set results in {site.config} to a folder that you can write")


@contextlib.contextmanager
def _make_folder(results: Path) -> Iterator[Path]:
    """Make a hidden folder in the results folder; it goes afterwards, with what was made above it."""
    made = [path for path in (results, *results.parents) if not path.exists()]
    results.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=results)).absolute()
    try:
        yield folder
    finally:
        for _ in range(3):  # the job may write while it is being stopped
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.5)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _visit(site: Site, folder: Path) -> Iterator[Finding]:
    drift = _measure_server_lead(folder / "here")
    job = Job(f"{NAME}-{folder.name[-8:]}", time.time())
    deadline = time.monotonic() + site.job_timeout
    try:
        refused = _submit(site, job, folder)
        if refused:
            yield Finding("FAIL", "node", refused, "a job like the doctor's is refused: see sbatch's words")
            return
        seen = _wait(job, folder, deadline)
    finally:
        if job.gone is None:
            run("scancel", f"--name={job.name}", f"--user={USER}")
    if seen is None:
        yield _explain_nothing(job, folder, site.job_timeout)
        return
    yield _check_reached(seen, job)
    yield _check_gpu(seen, site)
    yield _check_clock(seen, job, folder / "node.json", drift)


def _submit(site: Site, job: Job, folder: Path) -> str:
    """Submit the job; returns why that did not work, or nothing."""
    call = [sys.executable, "-m", "cotdistill.orchestration.doctor.node", str(folder / "node.json")]
    call += ["--torch"] if site.gpus else []
    call += [str(path.absolute()) for path in find_checkpoints(site).values() if path is not None]
    memory = min(MEMORY, site.asks()["mem_mb"] or MEMORY)
    output = str(folder / "log").replace("%", "%%")  # Slurm reads %j as the job's number
    answer = run(
        "sbatch", "--parsable", f"--job-name={job.name}", f"--output={output}", "--export=ALL",
        *site.where(), f"--mem={memory}", f"--time={MINUTES}", "--cpus-per-task=1", f"--chdir={os.getcwd()}",
        f"--wrap=exec {shlex.join(call)}", timeout=3 * shell.TIMEOUT,
    )
    if not answer.good:
        # what had to be stopped may have been submitted all the same: it is cancelled by its name
        return answer.said
    number = re.search(r"^\s*(\d{1,18})(?:;\S*)?\s*$", answer.out, re.MULTILINE)
    job.number = number[1] if number else "?"
    return ""


def _wait(job: Job, folder: Path, deadline: float) -> dict[str, Any] | None:
    """Return what the node wrote: all of it, or what there is at the deadline or when the job has gone."""
    seen, ask = None, 0.0
    while True:
        # a listing makes a network file system look again; one name alone is answered from memory
        if "node.json" in os.listdir(folder):
            with contextlib.suppress(UserError):
                found = read_json(folder / "node.json")
                seen = found if isinstance(found, dict) else seen
        now = time.monotonic()
        finished = seen is not None and seen.get("done") is True
        if finished or not now <= deadline or (job.gone is not None and now > job.gone + GRACE):
            break
        if now >= ask and job.gone is None:
            _look(job)
            ask = time.monotonic() + ASK
        time.sleep(0.2)
    return seen


def _look(job: Job) -> None:
    """Ask the queue how the job stands; where it does not answer, nothing is known."""
    answer = run("squeue", "--noheader", f"--name={job.name}", f"--user={USER}", "--format=%T|%r|%N")
    if not answer.good:
        return
    fields = answer.lines[0].strip().split("|") if answer.lines else []
    if len(fields) == 3:
        job.state, job.reason, job.node = (make_printable(field, 80) for field in fields)
    elif not fields:
        job.gone = time.monotonic()


def _explain_nothing(job: Job, folder: Path, waited: float) -> Finding:
    """Say why the job left no file: it did not start, or it could not write."""
    if job.gone is None and job.state in ("PENDING", "CONFIGURING", ""):
        why = f" ({job.reason})" if job.reason not in ("", "None") else ""
        state = job.state.lower() or "not seen in the queue"
        text = f"job {job.number} was still {state} after {waited:g} s{why} and was cancelled"
        advice = "nodes are busy, or the reason forbids it; wait longer with --job-timeout"
        return Finding("warn", "node", text, advice)
    words = ""
    with contextlib.suppress(OSError):
        words = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()[-1000:]
    place = f" on {job.node}" if job.node else ""
    log = f"its log: {make_printable(words, 300)}" if words else "not even its log is here"
    how = "ended" if job.gone is not None else f"ran for up to {waited:g} s"
    return Finding(
        "FAIL", "node", f"job {job.number}{place} {how} and wrote nothing into {folder.parent}; {log}",
        f"results and {sys.executable} must lie in folders that nodes see and can write"
    )  # fmt: skip


def _check_reached(seen: dict[str, Any], job: Job) -> Finding:
    place = f"job {job.number} on {make_printable(seen.get('host'), 60)}"
    missing = seen.get("missing")
    if isinstance(missing, list) and missing:
        return Finding("FAIL", "node", f"{place} does not see {make_printable(missing[0])}",
                       "set HF_HOME to a folder that nodes see, and prepare again")  # fmt: skip
    if not seen.get("command"):
        text = f"{place} writes the results folder, but finds no `cotdistill` on PATH"
        advice = "activate this Python's environment before snakemake: the jobs call it by name"
        return Finding("warn", "node", text, advice)
    python = make_printable(seen.get("python"), 20)
    return Finding("ok", "node", f"{place} runs this Python ({python}) and writes the results folder")


def _check_gpu(seen: dict[str, Any], site: Site) -> Finding:
    """Compare what driver and torch see with the GPUs that were asked for."""
    need = site.gpus
    if not need:
        device = site.largest.training.device
        if device == "auto":
            return Finding("warn", "gpu", "none asked for: training.device 'auto' asks Slurm for none",
                           f"set training.device: cuda in {site.config}, or cpu")  # fmt: skip
        return Finding("ok", "gpu", f"none asked for: the config needs none (training.device: {device})")
    listed, devices, torch = seen.get("gpus"), seen.get("devices"), seen.get("torch")
    shown = listed if isinstance(listed, list) else []
    names = ", ".join(map(make_printable, shown)) or "none by nvidia-smi"
    visible = make_printable(devices, 80) if devices is not None else "not set"
    text = f"{names}; CUDA_VISIBLE_DEVICES={visible}"
    if not isinstance(torch, dict):
        level = "warn" if isinstance(listed, list) and len(listed) >= need else "FAIL"
        return Finding(level, "gpu", f"{text}; torch had not answered yet",  # type: ignore[arg-type]
                       "wait longer: --job-timeout")  # fmt: skip
    if "error" in torch:
        return Finding("FAIL", "gpu", f"{text}; torch: {make_printable(torch['error'])}", "reinstall torch")
    count = int(torch["count"]) if isinstance(torch.get("count"), int) else 0
    text = f"{text}; torch {make_printable(torch.get('version'), 40)} sees {count} of {need}"
    if count >= need:
        return Finding("ok", "gpu", text)
    if torch.get("built") is None:
        return Finding("FAIL", "gpu", text, "this torch is built for CPUs: install a build for CUDA")
    if not listed:
        return Finding("FAIL", "gpu", text, "the node gave no GPU: another partition, or gres in the profile")
    return Finding("FAIL", "gpu", text, "the node's driver and this torch do not fit, or too few GPUs came")


def _measure_server_lead(path: Path) -> float:
    """Return the seconds by which the file server's clock is ahead of ours."""
    path.write_text("x", encoding="utf-8")
    return path.stat().st_mtime - time.time()


def _check_clock(seen: dict[str, Any], job: Job, path: Path, server: float) -> Finding:
    """Check that all clocks agree, node's and file server's: what is newer decides what is redone."""
    told = seen.get("time")
    if not isinstance(told, (int, float)) or told != told:
        return Finding("warn", "clock", "the node told no time", "run the doctor again")
    try:
        ahead = server - (path.stat().st_mtime - told)
    except OSError as error:
        return Finding("warn", "clock", f"not compared: {error.strerror}", "run the doctor again")
    # a file system that stamps files by the client's clock hides the difference: the job's window does not
    outside = max(job.submitted - told, told - time.time(), 0.0)
    worst = max(abs(ahead), outside, abs(server))
    text = f"node {ahead:+.1f} s, file server {server:+.1f} s against this machine"
    if worst <= SKEW:
        return Finding("ok", "clock", text)
    advice = "have the clocks synchronised: files would look older or newer than they are"
    return Finding("warn", "clock", f"{text}; up to {worst:.0f} s apart", advice)

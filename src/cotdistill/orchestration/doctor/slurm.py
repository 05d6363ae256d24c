"""Check Slurm without submitting: its commands, whether it takes the request, jobs left behind."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

from cotdistill.common.errors import UserError, list_some
from cotdistill.orchestration.doctor.finding import Finding, make_printable
from cotdistill.orchestration.doctor.local import find_snakemakes
from cotdistill.orchestration.doctor.shell import run
from cotdistill.orchestration.doctor.site import NAME, USER, Site

COMMANDS = ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "srun")
_TIME = re.compile(r"(?:(\d{1,6})-)?(\d{1,6})(?::(\d{1,6}))?(?::(\d{1,6}))?")


def check_commands(site: Site) -> Iterator[Finding]:
    """Check that everything that Snakemake's plugin calls is there."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        site.no_slurm = "no sbatch on this machine" if "sbatch" in missing else ""
        advice = "run this on a login node; where Slurm is a module, load it first"
        yield Finding("FAIL", "slurm", f"not on this machine: {', '.join(missing)}", advice)
        return
    version = run("sbatch", "--version")
    if version.good:
        yield Finding("ok", "slurm", f"{make_printable(version.out, 60)}: {', '.join(COMMANDS)}")
        return
    # the package alone, without a cluster: a fault only where somebody means to use it
    site.no_slurm = "Slurm's commands are here, and know no cluster"
    advice = "run this on a login node of the cluster"
    yield Finding("FAIL" if site.asked else "skip", "slurm", version.said, advice)


def check_request(site: Site) -> Iterator[Finding]:
    """Check that Slurm would take the largest job, also when it is retried with more memory and time."""
    try:
        words = site.request()
    except UserError as error:
        site.refused = str(error)
        yield Finding("FAIL", "request", str(error), f"correct it in {site.profile.path}")
        return
    asked = " ".join(words)
    first = run("sbatch", "--test-only", *words, "--wrap=true")
    limit = _limit(site)
    if not first.good:
        site.refused = "Slurm does not take the request"
        yield Finding("FAIL", "request", f"{first.said} (asked: {asked})", _repair(site))
    elif limit is not None and (site.asks()["runtime"] or 0) > limit:
        # sbatch takes it, and lets it wait for ever
        site.refused = "the partition's time limit is too short"
        text = f"{site.asks()['runtime']} minutes asked, the partition allows {limit}: jobs would never start"
        yield Finding("FAIL", "request", text, "lower compute.runtime of the student, or another partition")
    else:
        start = re.search(r"to start at (\S{1,40})", first.err + first.out)
        yield Finding("ok", "request", f"taken: {asked}" + (f" (could start {start[1]})" if start else ""))
        yield from _retried(site, limit)


def _retried(site: Site, limit: int | None) -> Iterator[Finding]:
    last = site.profile.number("retries", 0) + 1
    if last == 1:
        return
    answer = run("sbatch", "--test-only", *site.request(last), "--wrap=true")
    runtime = site.asks(last)["runtime"] or 0
    words = "" if answer.good else answer.said
    if limit is not None and runtime > limit:
        words = words or f"the partition allows {limit} minutes"
    if words:
        asks = f"attempt {last} would ask for {site.asks(last)['mem_mb']} MB and {runtime} minutes"
        yield Finding("warn", "request", f"{asks}: {words}",
                      "lower compute.mem_mb or compute.runtime, or the profile's retries")  # fmt: skip


def _repair(site: Site) -> str:
    place = site.profile.path or "the profile"
    return f"correct slurm_partition, slurm_account or slurm_extra in {place}, or compute in {site.config}"


def _limit(site: Site) -> int | None:
    """Return the partition's time limit in minutes; None where it has none, or none that can be read."""
    wanted = site.asks().get("slurm_partition")
    answer = run("sinfo", "--noheader", "--format=%P|%l", *([f"--partition={wanted}"] if wanted else []))
    found = [minutes for line in answer.lines if wanted or line.split("|")[0].strip().endswith("*")
             if (minutes := _parse_minutes(line.rpartition("|")[2].strip())) is not None]  # fmt: skip
    return max(found, default=None)


def _parse_minutes(text: str) -> int | None:
    """Return Slurm's d-hh:mm:ss, hh:mm:ss or mm:ss in minutes; None for `infinite` and what is no time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    days = int(match[1] or 0)
    parts = [int(part) for part in match.groups()[1:] if part is not None]
    if match[1] is None and len(parts) < 3:  # mm or mm:ss
        return parts[0]
    hours, minutes = parts[0], parts[1] if len(parts) > 1 else 0
    return (days * 24 + hours) * 60 + minutes


def check_orphans(site: Site) -> Iterator[Finding]:
    """Look for jobs of this folder without a Snakemake that would notice their end."""
    answer = run("squeue", "--noheader", f"--user={USER}", "--format=%A|%T|%M|%N|%j|%k|%Z")
    if not answer.good:
        yield Finding("warn", "orphans", f"not known: {answer.said}", "look with `squeue --me`")
        return
    here = {os.getcwd(), os.path.realpath("."), os.environ.get("PWD", os.getcwd())}
    mine = [line.strip() for line in answer.lines if line.strip().rpartition("|")[2] in here]
    jobs = [fields for line in mine if len(fields := line.split("|", 5)) == 6 and fields[0].isdigit()
            and not fields[4].startswith(NAME)]  # fmt: skip
    running = find_snakemakes()
    if not jobs:
        yield Finding("ok", "orphans", "no job of this folder is in the queue")
    elif running:
        yield Finding("ok", "orphans", f"{len(jobs)} jobs, and their snakemake runs (process {running[0]})")
    else:
        runs = {"_".join(run_id.split("/")): run_id for run_id in site.grid.runs}
        named = [f"{job} {_describe_job(rest, runs)} {state} {elapsed} {node or 'no node yet'}"
                 for job, state, elapsed, node, _, rest in jobs]  # fmt: skip
        ids = " ".join(job for job, *_ in jobs[:200])
        yield Finding(
            "warn", "orphans", f"{len(jobs)} jobs of this folder without a snakemake: {list_some(named, 8)}",
            "they go on, and a restarted snakemake waits for them (a run has a lease: the second process "
            f"takes over the result of the first); or cancel them: scancel {ids}"
        )  # fmt: skip


def _describe_job(rest: str, runs: dict[str, str]) -> str:
    """Return the rule and run of a job, from the comment that Snakemake's plugin gives it."""
    comment = rest.rpartition("|")[0]
    match = re.fullmatch(r"rule_([A-Za-z0-9]+)(?:_wildcards_(.*))?", comment)
    if match is None:
        return make_printable(comment, 60)
    rule, wildcards = match[1], match[2] or ""
    return f"{rule} {runs.get(wildcards, make_printable(wildcards, 60))}".strip()

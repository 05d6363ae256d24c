"""Check how Snakemake's plugin learns that a job ended: the wrong command makes it wait for ever."""

from __future__ import annotations

import datetime
import re
import shutil
import time
from collections.abc import Iterator

from cotdistill.orchestration.doctor.finding import Finding
from cotdistill.orchestration.doctor.shell import Answer, run
from cotdistill.orchestration.doctor.site import NAME, Site

SLOW = 5.0
"""seconds after which an answer is late: the plugin asks again and again"""
FIRST_CHECK = 40
"""the plugin's default of slurm-init-seconds-before-status-checks"""
USE_SQUEUE = "set slurm-status-command: squeue in the profile"


def check_status(site: Site) -> Iterator[Finding]:
    """Check that the command which the plugin will use answers, and knows the jobs that ended."""
    present = shutil.which("sacct") is not None
    setting = site.profile.settings.get("slurm-status-command")
    wanted = str(setting or ("sacct" if present else "squeue"))
    if wanted not in ("squeue", "sacct"):
        yield Finding("FAIL", "status", f"slurm-status-command is {wanted!r}", "set it to squeue or sacct")
        return
    started = time.monotonic()
    answer = run("squeue", "--format=%i|%T", "--states=all", "--noheader", "--name", NAME)
    took = time.monotonic() - started
    if not answer.good:
        yield Finding("FAIL", "status", answer.said, "Slurm's controller does not answer: try again later")
        return
    age = _read_min_job_age()
    needed = 3 * site.profile.number("slurm-init-seconds-before-status-checks", FIRST_CHECK)
    by_squeue = (age is not None and age >= needed) or not present
    if wanted == "sacct" and present:
        named = "" if setting else "the profile names no slurm-status-command, so sacct is used; "
        yield _check_accounting(_ask_sacct(), named, USE_SQUEUE if by_squeue else "")
    elif not by_squeue:
        # the plugin turns to sacct by itself where squeue would forget jobs too soon
        accounting = _ask_sacct()
        known = "an unknown time" if age is None else f"{age} s"
        text = f"squeue forgets jobs after {known}; under {needed} s the plugin uses sacct"
        advice = f"set slurm-init-seconds-before-status-checks: {max(1, (age or 30) // 3)} in the profile"
        if accounting.good:
            yield Finding("warn", "status", text, advice)
        else:
            yield Finding("FAIL", "status", f"{text}: {accounting.said}", advice)
    elif took > SLOW:
        yield Finding("warn", "status", f"squeue took {took:.0f} s", "set max-status-checks-per-second: 0.02")
    else:
        kept = f", ended jobs are known for {age} s" if age is not None else ""
        yield Finding("ok", "status", f"squeue answers in {took:.1f} s{kept}")


def _check_accounting(answer: Answer, named: str, better: str) -> Finding:
    if not answer.good:
        advice = better or "no status command works here: ask who runs the cluster"
        return Finding("FAIL", "status", f"{named}{answer.said}", advice)
    if better:
        text = f"{named}sacct answers, but a job cancelled by hand is waited for for ever"
        return Finding("warn", "status", text, better)
    return Finding("ok", "status", "sacct answers")


def _ask_sacct() -> Answer:
    since = f"{datetime.datetime.now() - datetime.timedelta(days=2):%Y-%m-%dT%H:00}"
    return run("sacct", "-X", "--parsable2", "--noheader", "--format=JobIdRaw,State", "--starttime", since,
               "--endtime", "now", "--name", NAME)  # fmt: skip


def _read_min_job_age() -> int | None:
    """Return the seconds that Slurm's controller remembers an ended job, as the plugin reads them."""
    found = re.search(r"^\s*MinJobAge\s*=\s*(\d{1,9})\s*(h?)", run("scontrol", "show", "config").out, re.M)
    return int(found[1]) * (3600 if found[2] else 1) if found else None

"""List the checks, run them and print a line each."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from cotdistill.common.errors import UserError
from cotdistill.orchestration.doctor import disk, job, local, slurm, status
from cotdistill.orchestration.doctor.finding import Finding
from cotdistill.orchestration.doctor.profile import Profile, find
from cotdistill.orchestration.doctor.site import Site, has_slurm
from cotdistill.orchestration.workflow import Workflow
from cotdistill.runs.experiment import load

DEFAULT = "slurm"
"""the profile that is looked at where none is named and the machine has Slurm"""


class Check(NamedTuple):
    """A check: its name in the lines, what runs it, and whether it is about Slurm."""

    name: str
    run: Callable[[Site], Iterable[Finding]]
    slurm: bool = False


CHECKS = (
    Check("slurm", slurm.check_commands, slurm=True),
    Check("request", slurm.check_request, slurm=True),
    Check("status", status.check_status, slurm=True),
    Check("orphans", slurm.check_orphans, slurm=True),
    Check("lock", local.check_lock),
    Check("student", local.check_students),
    Check("data", local.check_data),
    Check("disk", disk.check_disk),
    Check("gpu", local.check_gpu),
    Check("node", job.check_node, slurm=True),  # last: it waits for the queue
)


def run_checks(config: str, profile: str | None, job_timeout: float) -> int:
    """Run all checks, a line each as soon as it is known. Returns 1 if one of them failed, else 0."""
    experiment = load(config)
    grid = Workflow(experiment.model_dump(mode="json"), config)
    chosen, finding = choose(profile)
    skipped = explain_skipped_slurm(chosen, profile)
    site = Site(config, grid, chosen, skipped, job_timeout, asked=profile is not None)
    with _end_as_at_interrupt():
        failures = [_print(found) for found in itertools.chain([finding], examine(site))]
    return 1 if any(failures) else 0


@contextlib.contextmanager
def _end_as_at_interrupt() -> Iterator[None]:
    """End the block at a kill or a lost connection as at Ctrl-C: its job is cancelled, its files removed."""
    caught = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in caught]
    try:
        yield
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)


def choose(name: str | None) -> tuple[Profile, Finding]:
    """Return the profile to look at, and the line about it. One that was named must be there."""
    if name is None and not has_slurm():
        return Profile(), Finding("ok", "profile", "none named, and no Slurm here: jobs run on this machine")
    try:
        profile = find(name or DEFAULT)
    except UserError as error:
        advice = "name the profile with --profile: a folder with a config.yaml"
        return Profile(), Finding("FAIL" if name else "warn", "profile", str(error), advice)
    return profile, Finding("ok", "profile", f"{profile.path} (executor {profile.executor})")


def explain_skipped_slurm(profile: Profile, name: str | None) -> str:
    """Return why Slurm is not looked at; empty where it is."""
    if profile.path is not None and profile.executor != "slurm":
        return f"the profile's executor is {profile.executor}"
    if name is not None and profile.path is None:
        return "the profile cannot be read"
    if name is None and not has_slurm():
        return "no Slurm on this machine (no sbatch)"
    return ""


def examine(site: Site) -> Iterator[Finding]:
    """Yield the findings of all checks. A check that breaks is a finding, not the end."""
    for check in CHECKS:
        if check.slurm and site.no_slurm:
            yield Finding("skip", check.name, site.no_slurm)
            continue
        try:
            yield from check.run(site)
        except Exception as error:  # noqa: BLE001 the other checks are still worth their lines
            words = f"the check itself failed: {type(error).__name__}: {error}"
            yield Finding("FAIL", check.name, words, "a fault of cotdistill: please report it")


def _print(finding: Finding) -> bool:
    """Print the line, in letters that the terminal has; returns whether it is a failure."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = finding.line().encode(encoding, errors="backslashreplace").decode(encoding)
    print(line, flush=True)
    return finding.level == "FAIL"

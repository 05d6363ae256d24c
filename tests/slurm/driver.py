"""Lets things happen to a grid on a cluster, each to a run that is in the middle of its training.

Such a run is stopped (SIGSTOP) until it is its turn, so that nothing depends on how quick the machine is.
"""

from __future__ import annotations

import copy
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Cluster, until
from grid import RUNS, Checkout, Job, Snakemake, run_id

FIRST, SECOND, LEAN = map(run_id, RUNS)
EVENTS = {FIRST: ["requeue", "preempt", "outage"], SECOND: ["time limit", "cancel"]}
"""run -> what happens to it, in this order, each at another start (LEAN starts with too little memory)"""
OUTAGE = 20
"""seconds without a controller: longer than the 10 that the Slurm plugin waits for an answer"""


@dataclass
class Driver:
    """Watches, and notes what it saw and did."""

    cluster: Cluster
    work: Checkout
    snakemake: Snakemake
    waiting: dict[str, list[str]] = field(default_factory=lambda: copy.deepcopy(EVENTS))
    stopped: dict[str, tuple[Job, int]] = field(default_factory=dict)
    """run -> its job and process that stand still until the run's next event"""
    limited: tuple[Job, int] | None = None
    """the job and process that wait for Slurm's signal before the time limit"""
    first: dict[int, int] = field(default_factory=dict)
    """process -> the newest saved step when it was first seen"""
    hit_processes: set[int] = field(default_factory=set)
    together: set[tuple[tuple[str, str], ...]] = field(default_factory=set)
    """the (run, device) pairs that were seen at once"""
    hit: dict[str, tuple[Job, int]] = field(default_factory=dict)
    """event -> the job that it met, and the newest saved step"""
    said: dict[str, set[str]] = field(default_factory=dict)
    """run -> what its jobs wrote; Snakemake deletes the log of an earlier start"""

    def drive(self, seconds: float) -> None:
        """Until Snakemake has ended."""
        deadline = time.monotonic() + seconds
        while not self.snakemake.ended:
            assert time.monotonic() < deadline, self.snakemake.text()
            running = [job for job in self.work.jobs(self.cluster) if job.state == "RUNNING"]
            training = [job for job in running if job.stage == "train"]
            for job in training:
                process = self.busy(job)
                if process and self.waiting.get(job.run) and job.run not in self.stopped:
                    os.kill(process, signal.SIGSTOP)
                    self.stopped[job.run] = (job, process)
            self.note_devices(training)
            if self.limited:
                self.await_signal(*self.limited)
            elif run := self.next():
                self.happen(run)
            time.sleep(0.3)
        for run in self.work.runs:
            self.listen(run)

    def busy(self, job: Job) -> int | None:
        """The process that trains a job, once it has saved and until it is hit."""
        self.listen(job.run)
        process, now = self.work.process(job.run), self.work.step(job.run)
        if process is None or process in self.hit_processes:
            return None
        return process if self.first.setdefault(process, now) < now else None

    def listen(self, run: str) -> None:
        """Note what a run's job wrote."""
        lines = self.work.log(run).replace("\r", "\n").splitlines()
        self.said.setdefault(run, set()).update(lines)

    def note_devices(self, training: list[Job]) -> None:
        """Note which devices were given to jobs that run at once."""
        given = {job.run: self.cluster.field(job.id, "GRES").rpartition("IDX:")[2] for job in training}
        self.together.add(tuple(sorted((run, device.rstrip(")")) for run, device in given.items() if device)))

    def next(self) -> str | None:
        """The run whose event may happen now. What others would notice waits for them."""
        quiet = [run for run in self.stopped if self.waiting[run][0] not in ("preempt", "outage")]
        if quiet:
            return quiet[0]
        for run in self.stopped:
            others = any(todo for other, todo in self.waiting.items() if other != run)
            if self.waiting[run][0] == "preempt" or not others:
                return run
        return None

    def happen(self, run: str) -> None:
        """Do to the run's job, or to the cluster, what comes next."""
        job, process = self.stopped.pop(run)
        event = self.waiting[run].pop(0)
        self.hit[event] = (job, self.work.step(run))
        self.hit_processes.add(process)
        if event == "time limit":
            # so near that the profile's USR1@120 is due when Slurm next looks, which it does every 30 s
            hours, minutes, _ = map(int, self.cluster.field(job.id, "RunTime").split(":"))
            self.limit(job, 60 * hours + minutes + 2)
            self.limited = (job, process)
            return
        if event in ("requeue", "cancel"):
            self.cluster.call(*(("scontrol", "requeue") if event == "requeue" else ("scancel",)), job.id)
        os.kill(process, signal.SIGCONT)
        if event == "preempt":
            self.preempt()
        if event == "outage":
            self.cluster.stop_controller()
            time.sleep(OUTAGE)
            self.cluster.start_controller()

    def preempt(self) -> None:
        """Both GPUs for somebody more important: whoever trains has to go."""
        asks = ("--partition=urgent", "--gpus=2", "--output=/dev/null", "--wrap=true")
        urgent = self.cluster.call("sbatch", "--parsable", *asks)
        until("the urgent job's end", lambda: self.cluster.field(urgent, "JobState") == "COMPLETED", 300)

    def await_signal(self, job: Job, process: int) -> None:
        """When Slurm has sent its warning, which wakes the run too, lift the limit: one is enough."""
        if still(process):
            return
        self.limit(job, 60)
        if self.cluster.field(job.id, "TimeLimit") == "01:00:00":  # not while Slurm requeues it
            self.limited = None

    def limit(self, job: Job, minutes: int) -> None:
        """Set a job's time limit."""
        self.cluster.call("scontrol", "update", f"JobId={job.id}", f"TimeLimit={minutes}", check=False)

    def went_on_from(self, run: str) -> list[int]:
        """The steps that a run's starts went on from."""
        lines = [line.split("going on from step ") for line in self.said[run] if "going on from step" in line]
        return sorted(int(each[1].split()[0]) for each in lines)


def still(process: int) -> bool:
    """Whether a process is there, and stopped."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False

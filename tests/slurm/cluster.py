"""A private Slurm cluster of one node and two GPUs that do not exist, for the time of a test session.

It needs root or any user, no systemd, no cgroups, and writes only in its own short folder (a socket's
path has at most 107 bytes). Its daemons are children of this process and end with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("srun", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr")
PACKAGES = "slurmctld slurmd slurm-client munge"
GPUS = 2
CPUS = 8  # more than there are: jobs are many and small

CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it may start again; less than 5 counts as 120 s
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
# no cgroups: the memory in use is polled, and a job over its limit is killed
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmctldTimeout=60
SlurmdTimeout=60
KillWait=6
MessageTimeout=30
MinJobAge=600
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs={cpus} RealMemory=64000 Gres=gpu:{gpus}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=1-0 PriorityTier=10 DefMemPerCPU=500
PartitionName=urgent Nodes=ALL MaxTime=1-0 PriorityTier=100 DefMemPerCPU=500
"""


class Cluster:
    """Start it, stop it, stop and start its controller, and ask it for jobs."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cs", dir="/tmp"))
        self.folder.chmod(0o755)
        self.bin = self.folder / "bin"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    # --- its life

    def start(self) -> None:
        """Write the configuration, start the daemons and wait until the node takes jobs."""
        self._write()
        self._daemon("munged", "--foreground", "--force", "--num-threads=2", *(
            f"--{option}={self.folder}/munge.{ending}"
            for option, ending in (("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"),
                                   ("seed-file", "seed"), ("log-file", "log"))
        ))  # fmt: skip
        until("munged listens", (self.folder / "munge.sock").exists, 120)
        self.start_controller()
        self._daemon("slurmd", "-D", "-N", "n1")
        until("the node is idle", lambda: self.call("sinfo", "-h", "-o", "%T") == "idle", 120)

    def stop(self) -> None:
        """End all jobs and daemons, whatever state they are in, and remove the folder."""
        for job in self.query("%i"):
            self.call("scancel", job[0], check=False)
        try:
            until("all jobs ended", lambda: not self.query("%i"), 120)
        except TimeoutError:
            self._kill_steps()
        for name in reversed(self.processes):
            end(self.processes[name])
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_controller(self) -> None:
        """Start slurmctld; with the state that it left, if it was stopped."""
        self._daemon("slurmctld", "-D")
        until("slurmctld answers", lambda: "UP" in self.call("scontrol", "ping", check=False), 120)

    def stop_controller(self) -> None:
        """Stop slurmctld: jobs run on, every question to Slurm fails."""
        end(self.processes.pop("slurmctld"))

    # --- its jobs

    def call(self, *command: str, check: bool = True) -> str:
        """Run one of Slurm's commands; its standard output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{self.logs()}")
        return done.stdout.strip()

    def query(self, form: str, *options: str) -> list[list[str]]:
        """Rows of squeue, cut at `|`: `query("%i|%T", "--states=all")`."""
        if "slurmctld" not in self.processes:
            return []
        found = self.call("squeue", "-h", "-o", form, *options, check=False)
        return [line.split("|") for line in found.splitlines()]

    def field(self, job: str, name: str) -> str:
        """A field of `scontrol show job`, as JobState or Restarts; empty for a job that is gone."""
        shown = self.call("scontrol", "-d", "show", "job", job, check=False)
        return next((word.split("=", 1)[1] for word in shown.split() if word.startswith(f"{name}=")), "")

    def logs(self) -> str:
        """The last lines of the daemons' output."""
        texts = [path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.out"))]
        return "\n".join(texts)

    # --- how

    def _write(self) -> None:
        ports = free_ports(2)
        (self.folder / "slurm.conf").write_text(CONFIG.format(
            folder=self.folder, host=socket.gethostname().split(".")[0], cpus=CPUS, gpus=GPUS,
            user=subprocess.check_output(["id", "-un"], text=True).strip(),
            controller=ports[0], node=ports[1],
        ))  # fmt: skip
        (self.folder / "plugstack.conf").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self._devices()}\n")
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        # the step plugin drops SLURM_CONF before its srun: these set it again
        for name in CLIENTS:
            path = self.bin / name
            command = f"SLURM_CONF={self.folder}/slurm.conf exec {where(name)}"
            path.write_text(f'#!/bin/sh\n{command} "$@"\n')
            path.chmod(0o755)

    def _devices(self) -> str:
        """A device file a GPU: without one Slurm counts no GPU, and only a device gets a number."""
        try:
            for number in range(GPUS):
                os.mknod(self.folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
        except PermissionError:
            return f"/dev/tty[0-{GPUS - 1}]"
        return f"{self.folder}/gpu[0-{GPUS - 1}]"

    def _daemon(self, *command: str) -> None:
        output = (self.folder / f"{command[0]}.out").open("ab")
        self.processes[command[0]] = subprocess.Popen(
            [where(command[0]) or command[0], *command[1:]], env=self.environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip

    def _kill_steps(self) -> None:
        """End what still runs of jobs: their step daemons and all below, known by the cluster's folder."""
        import psutil

        for process in psutil.process_iter(["name", "environ"]):
            own = (process.info["environ"] or {}).get("SLURM_CONF") == self.environment["SLURM_CONF"]
            if own and process.info["name"] == "slurmstepd":
                for child in [*process.children(recursive=True), process]:
                    child.kill()


def missing() -> list[str]:
    """The programs that are needed and not here."""
    return [name for name in (*DAEMONS, *CLIENTS) if where(name) is None]


def where(name: str) -> str | None:
    """The path of a program; Debian keeps daemons where a user's PATH does not lead."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def end_with_parent() -> None:
    """In a child: get SIGTERM when the parent dies, so that a killed test session leaves no daemon."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def end(process: subprocess.Popen[Any]) -> None:
    """Stop one process: politely, then not."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def until(what: str, happens: Callable[[], Any], seconds: float = 300) -> Any:
    """Wait until `happens()` gives something true, which is returned; TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := happens()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return found

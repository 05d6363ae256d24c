"""Snakemake that looks after its cluster jobs every second.

Its Slurm plugin waits 10 s longer after every look that finds nothing finished, without an option.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def sleep(self: RemoteExecutor) -> None:
    await asyncio.sleep(1)


RemoteExecutor.sleep = sleep
sys.argv[0] = "snakemake"
main(sys.argv[1:])

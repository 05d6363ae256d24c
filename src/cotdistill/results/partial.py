"""Tables and figures of the runs that are finished, when others failed: the failures are named in them."""

from __future__ import annotations

import os
from pathlib import Path

from cotdistill.config.models import Experiment
from cotdistill.figures import draw_all
from cotdistill.progress import Status, statuses, table
from cotdistill.results import collect, compare


def partial(experiment: Experiment) -> list[Path]:
    """Print the state of the grid, and write what its finished runs allow; returns the files written.

    They are dated 1970, so that Snakemake takes them for out of date and makes them anew.
    """
    found = statuses(experiment)
    print(table(found))
    if not any(status.state == "done" for status in found):
        return []
    written = [*collect.collect(experiment, allow_missing=True), *compare.write(experiment)]
    written += draw_all(experiment)
    for path in written:
        os.utime(path, (0, 0))
    missing = [status for status in found if status.state != "done"]
    print(f"tables and figures of the {len(found) - len(missing)} finished runs; missing: {_named(missing)}")
    return written


def _named(missing: list[Status]) -> str:
    names = [status.run.id for status in missing]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

"""Tables and figures of the runs that are finished, when others failed: the failures are named in them."""

from __future__ import annotations

import os
from pathlib import Path

from cotdistill.config.models import Experiment
from cotdistill.errors import listed
from cotdistill.figures import draw_all
from cotdistill.progress import statuses, table
from cotdistill.results import collect, compare

OUT_OF_DATE = 86_400
"""time of what is partial, in s since 1970: older than any input; Snakemake takes 0 for no time"""


def partial(experiment: Experiment) -> list[Path]:
    """Print the state of the grid, and write what its finished runs allow; returns the files written.

    They are dated `OUT_OF_DATE`, so that Snakemake makes them anew.
    """
    found = statuses(experiment)
    print(table(found))
    if not any(status.state == "done" for status in found):
        return []
    written = [*collect.collect(experiment, allow_missing=True), *compare.write(experiment)]
    written += draw_all(experiment)
    for path in written:
        os.utime(path, (OUT_OF_DATE, OUT_OF_DATE))
    missing = [status.run.id for status in found if status.state != "done"]
    finished = len(found) - len(missing)
    print(f"tables and figures of the {finished} finished runs; missing: {listed(missing, 8)}")
    return written


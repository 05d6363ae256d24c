"""Write tables and figures of the runs that are finished, when others failed; they name those missing."""

from __future__ import annotations

import os
from pathlib import Path

from cotdistill.common.errors import list_some
from cotdistill.config.models import Experiment
from cotdistill.orchestration.deleted import PASSES, note
from cotdistill.orchestration.progress import format_table, list_statuses
from cotdistill.report.comparison import write_comparison
from cotdistill.report.figures import draw_all
from cotdistill.tables.collect import collect

OUT_OF_DATE = 86_400
"""time of what is partial, in s since 1970: older than any input"""


def write_partial(experiment: Experiment) -> list[Path]:
    """Print the state of the grid and write what its finished runs allow; return the files written.

    Snakemake makes these files anew: they are noted in a file that `Workflow.passes` reads. They are dated
    `OUT_OF_DATE` besides, so that a person sees what they are.
    """
    found = list_statuses(experiment)
    print(format_table(found))
    if not any(status.state == "done" for status in found):
        return []
    # before the first is written, as this may be killed
    done = sum(status.state == "done" for status in found)
    note(experiment.folder / PASSES, f"tables and figures of {done} of {len(found)} runs")
    written = [*collect(experiment, allow_missing=True), *write_comparison(experiment)]
    written += draw_all(experiment)
    for path in written:
        os.utime(path, (OUT_OF_DATE, OUT_OF_DATE))
    missing = [status.run.id for status in found if status.state != "done"]
    print(f"tables and figures of the {done} finished runs; missing: {list_some(missing, 8)}")
    return written

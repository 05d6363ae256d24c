"""Notice what was deleted while something that is made of it stands, so that it is made again.

Snakemake does not ask for a missing file while what was made of it is there. So `rule all` names what is
missing, and a count is a parameter of the rules that are to work again: one more makes their files anew. It
counts the lines of a file, and stays as it is once the job is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.config.store import find_database, open_uri

PASSES = "partial.txt"
"""file of an experiment's folder with a line for each time that tables and figures are to be made anew"""
STORES = "store.txt"
"""the same for each time that the runs are to be written into a store anew"""
COLLECTED = (
    "results.parquet", "results.csv", "history.parquet", "measures.parquet", "examples.parquet",
    "samples.parquet",
)  # fmt: skip
"""the tables that `collect` makes, which the others are made of"""
TABLES = ("results.parquet", "tables/comparison.md", "figures/accuracy.png", "tracked.json")
"""of an experiment's folder: where one stands, every run was finished, or is missing in partial tables"""


def count_lines(path: Path) -> int:
    """Return how often something was noted in a file; 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def note(path: Path, said: str) -> None:
    """Add a line to a file of notes, with the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n")


def find_deleted(folder: Path, made_of: Iterable[str]) -> list[str]:
    """Return which of the files that tables are made of are missing, where such tables stand in `folder`."""
    if not any((folder / name).exists() for name in TABLES):
        return []
    return [path for path in made_of if not os.path.exists(path)]


def is_store_deleted(experiment: Experiment) -> bool:
    """Return whether the runs were written into a store whose file is gone."""
    if not (experiment.folder / "tracked.json").exists():
        return False
    try:
        store = find_database(open_uri(experiment)[0])
    except UserError:  # a variable that is not set here, which tracking names
        return False
    return store is not None and not store.exists()

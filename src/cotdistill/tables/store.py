"""Write the tables of an experiment and read them back, so that no flipped bit passes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cotdistill.common.errors import UserError
from cotdistill.common.files import atomic
from cotdistill.config.models import Experiment
from cotdistill.tables.columns import (
    EXAMPLE_COLUMNS,
    HISTORY_COLUMNS,
    MEASURE_COLUMNS,
    RESULT_COLUMNS,
    SAMPLE_COLUMNS,
)

SEAL = b"cotdistill.seal"
"""key in a Parquet file's metadata of the digest of its content"""


class TableFiles(NamedTuple):
    """The paths of the files that `collect` writes."""

    results: Path
    results_csv: Path
    history: Path
    measures: Path
    examples: Path
    samples: Path


def find_table_files(experiment: Experiment) -> TableFiles:
    """Return the paths of an experiment's tables, which are in `<results>/<experiment>/`."""
    tables = ("history", "measures", "examples", "samples")
    names = ("results.parquet", "results.csv", *(f"{table}.parquet" for table in tables))
    return TableFiles(*(experiment.folder / name for name in names))


@dataclass(frozen=True)
class Tables:
    """The tables of an experiment, each read from its file when it is first looked at.

    Raises UserError when a table is absent or corrupt. The columns are those of `tables.columns`.
    """

    experiment: Experiment

    @cached_property
    def results(self) -> pd.DataFrame:
        """A row for each run of the grid."""
        return read_table(find_table_files(self.experiment).results, RESULT_COLUMNS)

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row for each finished run, step and metric."""
        return read_table(find_table_files(self.experiment).history, HISTORY_COLUMNS)

    @cached_property
    def measures(self) -> pd.DataFrame:
        """A row for each finished run and measure, such as `calibration/options/brier`."""
        return read_table(find_table_files(self.experiment).measures, MEASURE_COLUMNS)

    @cached_property
    def examples(self) -> pd.DataFrame:
        """A row for each finished run and test example."""
        return read_table(find_table_files(self.experiment).examples, EXAMPLE_COLUMNS)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The texts of a few test examples: a row for each run's answer, and for the teacher's."""
        return read_table(find_table_files(self.experiment).samples, SAMPLE_COLUMNS)


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet with a digest of its content, atomically."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), SEAL: _digest(frame)}
    with atomic(path) as part:
        parquet.write_table(table.replace_schema_metadata(metadata), part)


def _digest(frame: pd.DataFrame) -> bytes:
    """Return the digest of a table's content: Parquet's own checksums do not cover all of it."""
    hashed = hashlib.sha256(repr(list(frame.columns)).encode())
    hashed.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return hashed.hexdigest()[:16].encode()


def read_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Read a table that `write_table` wrote, with these types. Raises UserError when absent or corrupt."""
    if not path.exists():
        raise UserError(f"{path}: no such table; run the collect stage first")
    from pyarrow import parquet

    remedy = f"remove {path} to collect again"
    try:
        seal = (parquet.read_schema(path).metadata or {}).get(SEAL)
        frame = pd.read_parquet(path)
        sound = seal is None or seal == _digest(frame)
    except Exception as error:  # noqa: BLE001 a corrupt file raises whatever its reader raises
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: not a readable table ({reason}); {remedy}") from error
    if not sound:
        raise UserError(f"{path}: corrupt: its numbers are not those that were collected; {remedy}")
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise UserError(f"{path}: column '{absent[0]}' is missing; collect again with this version")
    # the types that pandas notes in the file are not sealed: ours hold
    return frame.reset_index(drop=True)[list(columns)].astype(columns)


def to_frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Return rows as a table; it has the types of `columns` even when there are no rows."""
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)

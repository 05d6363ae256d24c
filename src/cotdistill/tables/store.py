"""The tables of an experiment: their columns, and writing and reading them so that no flipped bit passes."""

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
from cotdistill.runs.grid import AXES

# column -> pandas type, in the order of the table; the types hold even when every run is missing
COLUMNS = {
    "run": "str",
    "experiment": "str",
    "dataset": "str",
    "student": "str",
    "method": "str",
    "labels": "str",
    "fraction": "float64",
    "seed": "int64",
    "status": "str",
    "adapter": "str",
    "pretrained": "str",
    "objective": "str",
    "method_settings": "str",
    "config_hash": "str",
    "accuracy": "float64",
    "correct": "Int64",
    "n_test": "Int64",
    "step": "Int64",
    "valid_accuracy": "float64",
    "mean_confidence": "float64",
    "accuracy_published": "float64",
    "step_published": "Int64",
    "n_train": "Int64",
    "n_valid": "Int64",
    "teacher_accuracy_train": "float64",
    "teacher_accuracy_valid": "float64",
    "teacher_accuracy_test": "float64",
    "wall_s": "float64",
    "evaluation_wall_s": "float64",
    "peak_memory_mb": "float64",
    "git_commit": "str",
    "data_checksum": "str",
    "device": "str",
    "finished_at": "str",
    "folder": "str",
}
_AXES = {axis: COLUMNS[axis] for axis in AXES}
HISTORY_COLUMNS = {
    **_AXES,
    "run": "str",
    "step": "int64",
    "epoch": "float64",
    "metric": "str",
    "value": "float64",
}
MEASURE_COLUMNS = {**_AXES, "run": "str", "measure": "str", "value": "float64"}
EXAMPLE_COLUMNS = {
    **_AXES,
    "run": "str",
    "example": "str",
    "correct": "bool",
    "confidence": "float64",
    "option_correct": "boolean",
    "option_confidence": "float64",
}
SAMPLE_COLUMNS = {
    **{axis: kind for axis, kind in _AXES.items() if axis != "method"},
    "input": "str",
    "gold": "str",
    "by": "str",
    "prediction": "str",
    "correct": "boolean",
    "rationale": "str",
}

SEAL = b"cotdistill.seal"
"""key in a Parquet file's metadata of the digest of its content"""


class Files(NamedTuple):
    """The files that `collect` writes."""

    results: Path
    results_csv: Path
    history: Path
    measures: Path
    examples: Path
    samples: Path


def files_of(experiment: Experiment) -> Files:
    """Where the tables of an experiment stand: `<results>/<experiment>/`."""
    folder = Path(experiment.results, experiment.experiment)
    tables = ("history", "measures", "examples", "samples")
    names = ("results.parquet", "results.csv", *(f"{table}.parquet" for table in tables))
    return Files(*(folder / name for name in names))


@dataclass(frozen=True)
class Tables:
    """The tables of an experiment, each read when it is first looked at.

    results: a row per run of the grid (COLUMNS). history: long, one row per finished run, step and metric.
    measures: long, one row per finished run and measure (`calibration/options/brier`, ...). examples: one
    row per finished run and test example. samples: the texts of a few test examples, a row for each run's
    answer and for the teacher's (see `results.samples`). `evidence` and `overall` follow from results and
    examples.

    Raises UserError when a table is absent or corrupt.
    """

    experiment: Experiment

    @cached_property
    def results(self) -> pd.DataFrame:
        return read(files_of(self.experiment).results, COLUMNS)

    @cached_property
    def history(self) -> pd.DataFrame:
        return read(files_of(self.experiment).history, HISTORY_COLUMNS)

    @cached_property
    def measures(self) -> pd.DataFrame:
        return read(files_of(self.experiment).measures, MEASURE_COLUMNS)

    @cached_property
    def examples(self) -> pd.DataFrame:
        return read(files_of(self.experiment).examples, EXAMPLE_COLUMNS)

    @cached_property
    def samples(self) -> pd.DataFrame:
        return read(files_of(self.experiment).samples, SAMPLE_COLUMNS)

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """Every method against the baseline, see `results.evidence`."""
        from cotdistill.analysis.evidence import evidence

        return evidence(self.examples, self.results, self.experiment.baseline)

    @cached_property
    def overall(self) -> pd.DataFrame:
        """The same over datasets."""
        from cotdistill.analysis.evidence import overall

        return overall(self.examples, self.results, self.experiment.baseline)


def write(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet with a digest of its content, atomically."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), SEAL: _seal(frame)}
    with atomic(path) as part:
        parquet.write_table(table.replace_schema_metadata(metadata), part)


def _seal(frame: pd.DataFrame) -> bytes:
    """Digest of a table's content: Parquet has no checksums of its own that cover all of it."""
    hashed = hashlib.sha256(repr(list(frame.columns)).encode())
    hashed.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return hashed.hexdigest()[:16].encode()


def read(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Read a table that `write` wrote, typed as `columns` say. Raises UserError when absent or corrupt."""
    if not path.exists():
        raise UserError(f"{path}: no such table; run the collect stage first")
    from pyarrow import parquet

    remedy = f"remove {path} to collect again"
    try:
        seal = (parquet.read_schema(path).metadata or {}).get(SEAL)
        frame = pd.read_parquet(path)
        sound = seal is None or seal == _seal(frame)
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


def frame_of(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Rows as a table whose types hold even when there are none."""
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)

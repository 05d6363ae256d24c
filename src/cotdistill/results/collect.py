"""Collect the run folders of an experiment into one tidy table of results and one of histories."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cotdistill.config.grid import AXES, Run, expand
from cotdistill.config.models import Experiment
from cotdistill.errors import UserError
from cotdistill.files import atomic, file_sha256, read_json, read_jsonl, read_sealed, write_text

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
HISTORY_COLUMNS = {
    **{axis: COLUMNS[axis] for axis in AXES},
    "run": "str",
    "step": "int64",
    "epoch": "float64",
    "metric": "str",
    "value": "float64",
}


SEAL = b"cotdistill.seal"
"""key in a Parquet file's metadata of the digest of its content"""


class Tables(NamedTuple):
    """The files that `collect` writes."""

    results: Path
    results_csv: Path
    history: Path


def tables_of(experiment: Experiment) -> Tables:
    """Where the tables of an experiment stand: `<results>/<experiment>/`."""
    folder = Path(experiment.results, experiment.experiment)
    return Tables(folder / "results.parquet", folder / "results.csv", folder / "history.parquet")


def collect(experiment: Experiment, allow_missing: bool = False) -> Tables:
    """Write `results.parquet`, `results.csv` (a row per run of the grid) and `history.parquet`.

    Accuracies are fractions in [0, 1], times seconds, memory MB. `history.parquet` is long: one row
    per run, step and metric, of the finished runs; a value that was not finite is NaN.

    Raises UserError when a run has no `metrics.json` (unless `allow_missing`, which gives it a row
    with status 'missing'), when a run folder was written under another config, and when a file is
    corrupt.
    """
    runs = expand(experiment)
    # read every finished run first: a folder of another config is the fault to hear of before others
    rows = [result_row(run) for run in runs]
    missing = [row["run"] for row in rows if row["status"] == "missing"]
    if missing and not allow_missing:
        named = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise UserError(
            f"{len(missing)} of {len(rows)} runs have no metrics.json below "
            f"{tables_of(experiment).results.parent / 'runs'}: {named}; train them, or allow missing runs"
        )
    done = [run for run, row in zip(runs, rows, strict=True) if row["status"] == "done"]
    history = [line for run in done for line in history_rows(run)]
    paths = tables_of(experiment)
    results = _frame(rows, COLUMNS)
    _write(paths.results, results)
    write_text(paths.results_csv, results.to_csv(index=False, lineterminator="\n"))
    _write(paths.history, _frame(history, HISTORY_COLUMNS))
    return paths


def read_results(experiment: Experiment) -> pd.DataFrame:
    """The table of results as `collect` wrote it. Raises UserError when it is absent or corrupt."""
    return _read(tables_of(experiment).results, COLUMNS)


def read_history(experiment: Experiment) -> pd.DataFrame:
    """The long table of histories as `collect` wrote it. Raises UserError as `read_results`."""
    return _read(tables_of(experiment).history, HISTORY_COLUMNS)


def _write(path: Path, frame: pd.DataFrame) -> None:
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


def _read(path: Path, columns: dict[str, str]) -> pd.DataFrame:
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


def _frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def result_row(run: Run) -> dict[str, Any]:
    """One row of the table of results, keyed by COLUMNS; absent values are None or NaN.

    Raises UserError when the folder holds another config's state, or a file of it is corrupt.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(
        {
            "run": run.id,
            "experiment": run.experiment.experiment,
            **run.axes,
            "status": "missing",
            "adapter": run.dataset.adapter,
            "pretrained": run.student.pretrained,
            "objective": run.config["method_settings"]["method"],
            "method_settings": json.dumps(run.config["method_settings"], sort_keys=True),
            "config_hash": run.hash,
            "folder": str(run.folder),
        }
    )
    file = run.folder / "metrics.json"
    metrics = read_sealed(file, f"remove {file} to evaluate again") if file.exists() else None
    if metrics is not None and metrics.get("hash") == run.hash:
        _check_files(run, metrics)
    _check_config(run)
    if metrics is not None:
        _check_hash(run, metrics, file)
        row.update(_results(metrics, file), status="done")
        row.update(_provenance(run.folder / "environment.json"))
    return row


def history_rows(run: Run) -> list[dict[str, Any]]:
    """The long history of one run, one dict per step and metric, keyed by HISTORY_COLUMNS.

    A step that a resumed run wrote twice counts once, as written last.
    """
    file = run.folder / "history.jsonl"
    values: dict[tuple[int, str], dict[str, Any]] = {}
    for number, line in enumerate(read_jsonl(file), start=1):
        where = f"{file}: entry {number}"
        step = _checked(line.get("step"), "step", where)
        epoch = _checked(line.get("epoch"), "epoch", where, optional=True)
        for metric in line:
            if metric in ("step", "epoch"):
                continue
            value = _checked(line[metric], metric, where, optional=True)
            values[int(step), metric] = {
                **run.axes,
                "run": run.id,
                "step": int(step),
                "epoch": epoch,
                "metric": metric,
                "value": value,
            }
    return list(values.values())


def _check_files(run: Run, metrics: dict[str, Any]) -> None:
    """Raises UserError where a file beside `metrics.json` is not what it was when that was written."""
    digests = dict(metrics.get("files", {}))
    if "predictions_sha256" in metrics:
        digests["predictions.jsonl"] = metrics["predictions_sha256"]
    for name, expected in digests.items():
        path = run.folder / name
        own = name == "predictions.jsonl"
        remedy = f"remove {path} to evaluate again" if own else f"remove {run.folder} to train again"
        try:
            found = file_sha256(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
        if found != expected:
            raise UserError(f"{path}: corrupt: its bytes are not those that were written; {remedy}")


def _check_config(run: Run) -> None:
    file = run.folder / "config.json"
    if not file.exists():
        if (run.folder / "metrics.json").exists():
            raise UserError(f"{file}: no such file, though the run has a metrics.json; expected both")
        return
    _check_hash(run, _object(file), file)


def _check_hash(run: Run, found: dict[str, Any], file: Path) -> None:
    if found.get("hash") != run.hash:
        raise UserError(
            f"{file}: history from another config: written under {found.get('hash')}, the config now says "
            f"{run.hash}; move the folder away and train again, or restore the config"
        )
    if found.get("run") != run.id:
        raise UserError(f"{file}: belongs to run '{found.get('run')}', expected '{run.id}'")


def _results(metrics: dict[str, Any], file: Path) -> dict[str, Any]:
    row = {
        "accuracy": _accuracy(metrics, "strict.test_accuracy", file),
        "correct": _count(metrics, "strict.test_correct", file),
        "n_test": _count(metrics, "strict.test_n", file),
        "step": _count(metrics, "strict.step", file),
        "valid_accuracy": _accuracy(metrics, "strict.valid_accuracy", file, optional=True),
        "mean_confidence": _accuracy(metrics, "strict.mean_confidence", file, optional=True),
        "accuracy_published": _accuracy(metrics, "published.test_accuracy", file, optional=True),
        "step_published": _count(metrics, "published.step", file),
        "n_train": _count(metrics, "sizes.train", file),
        "n_valid": _count(metrics, "sizes.valid", file),
        "evaluation_wall_s": _number(metrics, "evaluation_wall_s", file, optional=True),
    }
    for split in ("train", "valid", "test"):
        key = f"teacher.{split}.accuracy"
        row[f"teacher_accuracy_{split}"] = _accuracy(metrics, key, file, optional=True)
    if row["n_test"] < 1 or abs(row["accuracy"] - row["correct"] / row["n_test"]) > 1e-6:
        raise UserError(
            f"{file}: 'strict.test_accuracy' is {row['accuracy']}, expected test_correct / test_n = "
            f"{row['correct']} / {row['n_test']}"
        )
    return row


def _provenance(file: Path) -> dict[str, Any]:
    found = _object(file)
    row: dict[str, Any] = {}
    for key in ("wall_s", "peak_memory_mb"):
        row[key] = _number(found, key, file, optional=True)
    for key in ("git_commit", "data_checksum", "device", "finished_at"):
        row[key] = None if found.get(key) is None else str(found[key])
    return row


def _object(file: Path) -> dict[str, Any]:
    value = read_json(file)
    if not isinstance(value, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value


def _number(value: Any, key: str, where: Path, optional: bool = False) -> float:
    """The number at the dotted `key`; NaN for null or absent if `optional`."""
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return _checked(value, key, where, optional)


def _checked(value: Any, key: str, where: Path | str, optional: bool = False) -> float:
    if value is None and optional:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        found = "nothing" if value is None else repr(value)
        raise UserError(f"{where}: '{key}': expected a number, found {found}")
    return float(value)


def _count(value: Any, key: str, where: Path) -> int:
    number = _number(value, key, where)
    if number < 0 or number != int(number):
        raise UserError(f"{where}: '{key}': expected a whole number from 0, found {number}")
    return int(number)


def _accuracy(value: Any, key: str, where: Path, optional: bool = False) -> float:
    number = _number(value, key, where, optional)
    if number < 0 or number > 1:
        raise UserError(f"{where}: '{key}': expected a fraction in [0, 1], found {number}")
    return number

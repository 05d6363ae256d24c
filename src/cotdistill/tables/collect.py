"""Collect the run folders of an experiment into the tables of `results.tables`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError, listed
from cotdistill.common.files import file_sha256, read_json, read_jsonl, read_sealed, write_text
from cotdistill.config.models import Experiment
from cotdistill.evaluation import judge
from cotdistill.report.samples import sample_rows
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.measures import flat
from cotdistill.tables.store import (
    COLUMNS,
    EXAMPLE_COLUMNS,
    HISTORY_COLUMNS,
    MEASURE_COLUMNS,
    SAMPLE_COLUMNS,
    Files,
    files_of,
    frame_of,
    write,
)


def collect(experiment: Experiment, allow_missing: bool = False) -> Files:
    """Write the tables of `results.tables.Tables`, and `results.csv`, from the run folders.

    Accuracies are fractions in [0, 1], times seconds, memory MB. A value of the history that was not
    finite is NaN.

    Raises UserError when a run has no `metrics.json` (unless `allow_missing`, which gives it a row
    with status 'missing'), when a run folder was written under another config, and when a file is
    corrupt.
    """
    runs = expand(experiment)
    # read every finished run first: a folder of another config is the fault to hear of before others
    rows = [result_row(run) for run in runs]
    missing = [row["run"] for row in rows if row["status"] == "missing"]
    paths = files_of(experiment)
    if missing and not allow_missing:
        raise UserError(
            f"{len(missing)} of {len(rows)} runs have no metrics.json below "
            f"{paths.results.parent / 'runs'}: {listed(missing, 8)}; train them, or allow missing runs"
        )
    done = [run for run, row in zip(runs, rows, strict=True) if row["status"] == "done"]
    results = frame_of(rows, COLUMNS)
    write(paths.results, results)
    write_text(paths.results_csv, results.to_csv(index=False, lineterminator="\n"))
    write(paths.history, frame_of(_all(history_rows, done), HISTORY_COLUMNS))
    judged = judge.read_ratings(experiment) if experiment.evaluation.judge else {}
    measures = [row for run in done for row in measure_rows(run, judged.get(run.id, {}))]
    write(paths.measures, frame_of(measures, MEASURE_COLUMNS))
    write(paths.examples, frame_of(_all(example_rows, done), EXAMPLE_COLUMNS))
    data = {row["run"]: row["data_checksum"] for row in rows}
    write(paths.samples, frame_of(sample_rows(done, data), SAMPLE_COLUMNS))
    return paths


def _all(rows_of: Any, runs: Iterable[Run]) -> list[dict[str, Any]]:
    return [row for run in runs for row in rows_of(run)]


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
    file = run.files.metrics
    metrics = read_sealed(file, f"remove {file} to evaluate again") if file.exists() else None
    if metrics is not None and metrics.get("hash") == run.hash:
        _check_files(run, metrics)
    _check_config(run)
    if metrics is not None:
        _check_hash(run, metrics, file)
        row.update(_results(metrics, file), status="done")
        row.update(_provenance(run.files.environment))
    return row


def history_rows(run: Run) -> list[dict[str, Any]]:
    """The long history of one run, one dict per step and metric, keyed by HISTORY_COLUMNS.

    A step that a resumed run wrote twice counts once, as written last.
    """
    file = run.files.history
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


def measure_rows(run: Run, judged: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """What was measured of a finished run beside its accuracy, one dict per measure (MEASURE_COLUMNS).

    judged: what the judge gave the run, if there was one.
    """
    measured = flat(read_json(run.files.metrics))
    measured |= {f"rationale/{name}": float(value) for name, value in judged.items() if value is not None}
    return [{**run.axes, "run": run.id, "measure": name, "value": value} for name, value in measured.items()]


def example_rows(run: Run) -> list[dict[str, Any]]:
    """The test examples of a finished run, one dict each (EXAMPLE_COLUMNS). Raises UserError as `collect`."""
    file = run.files.predictions
    rows = []
    for number, line in enumerate(read_jsonl(file), start=1):
        where = f"{file}: entry {number}"
        if not isinstance(line.get("correct"), bool) or not isinstance(line.get("id"), str):
            raise UserError(f"{where}: expected an 'id' (text) and 'correct' (true or false)")
        rows.append({
            **run.axes, "run": run.id, "example": line["id"], "correct": line["correct"],
            "confidence": _checked(line.get("confidence"), "confidence", where, optional=True),
            **_option(line, where),
        })  # fmt: skip
    return rows


def _option(line: dict[str, Any], where: str) -> dict[str, Any]:
    """The likeliest option: is it the gold label, and its probability; nothing for an open label set."""
    options, probabilities = line.get("options") or [], line.get("option_probabilities") or []
    if len(options) != len(probabilities):
        raise UserError(f"{where}: {len(options)} options, but {len(probabilities)} probabilities")
    if not options:
        return {"option_correct": None, "option_confidence": math.nan}
    values = [_checked(value, "option_probabilities", where) for value in probabilities]
    best = max(range(len(values)), key=values.__getitem__)
    return {"option_correct": options[best] == line.get("gold"), "option_confidence": values[best]}


def _check_files(run: Run, metrics: dict[str, Any]) -> None:
    """Raises UserError where a file beside `metrics.json` is not what it was when that was written."""
    digests = dict(metrics.get("files", {}))
    if "predictions_sha256" in metrics:
        digests["predictions.jsonl"] = metrics["predictions_sha256"]
    for name, expected in digests.items():
        path = run.folder / name
        remedy = f"remove {run.folder} to train again"
        if name == "predictions.jsonl":  # Snakemake asks for the metrics, and makes both anew
            remedy = f"remove {run.folder / 'metrics.json'} to evaluate again"
        try:
            found = file_sha256(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
        if found != expected:
            raise UserError(f"{path}: corrupt: its bytes are not those that were written; {remedy}")


def _check_config(run: Run) -> None:
    file = run.files.config
    if not file.exists():
        if (run.files.metrics).exists():
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

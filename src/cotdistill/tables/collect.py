"""Collect the run folders of an experiment into its tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError, list_some
from cotdistill.common.files import check_hash, digest, read_sealed, write_text
from cotdistill.config.models import Experiment
from cotdistill.data.overlap_report import read_overlap
from cotdistill.evaluation import judge
from cotdistill.evaluation.variety import is_collapsed
from cotdistill.methods import is_proposed
from cotdistill.runs.documents import (
    Answer,
    Environment,
    Metrics,
    RunConfig,
    read_answers,
    read_history,
)
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.columns import (
    EXAMPLE_COLUMNS,
    HISTORY_COLUMNS,
    MEASURE_COLUMNS,
    OVERLAP,
    RESULT_COLUMNS,
    SAMPLE_COLUMNS,
)
from cotdistill.tables.measures import flatten_measures
from cotdistill.tables.samples import build_sample_rows
from cotdistill.tables.store import TableFiles, find_table_files, to_frame, write_table

Ratings = Mapping[str, Mapping[str, float | None]]
"""what the judge gave, by run id"""


class OtherConfigError(UserError):
    """A run folder that was written under another config than the experiment's."""


@dataclass(frozen=True)
class Results:
    """The documents that a finished run's rows are made of, and a digest of all that its folder says."""

    metrics: Metrics
    environment: Environment
    content: str
    """digest of `metrics.json`, which tells the digests of the other files"""


def collect(experiment: Experiment, allow_missing: bool = False) -> TableFiles:
    """Write the tables of `tables.store.Tables`, and `results.csv`, from the run folders; return their paths.

    Accuracies are fractions in [0, 1], times seconds, memory MB. A value of the history that was not
    finite is NaN.

    allow_missing: give a row with status 'missing' to a run that has no `metrics.json`, and to one whose
    folder is still that of another config, because training it again failed. Raises UserError for such runs
    otherwise, and for a corrupt file always.
    """
    runs = expand(experiment)
    # every finished run is read first: a folder of another config is the fault to hear of before others
    found = {run.id: read_results(run, allow_missing) for run in runs}
    rows = [build_result_row(run, found[run.id]) for run in runs]
    missing = [row["run"] for row in rows if row["status"] == "missing"]
    paths = find_table_files(experiment)
    if missing and not allow_missing:
        raise UserError(
            f"{len(missing)} of {len(rows)} runs have no metrics.json below "
            f"{experiment.folder / 'runs'}: {list_some(missing, 8)}; train them, or allow missing runs"
        )
    done = [run for run in runs if found[run.id]]
    results = to_frame(rows, RESULT_COLUMNS)
    write_table(paths.results, results)
    write_text(paths.results_csv, results.to_csv(index=False, lineterminator="\n"))
    write_table(paths.history, to_frame(_join(build_history_rows, done), HISTORY_COLUMNS))
    ratings = read_ratings(experiment)
    measures = [
        row for run in done if (own := found[run.id]) for row in build_measure_rows(run, own.metrics, ratings)
    ]
    write_table(paths.measures, to_frame(measures, MEASURE_COLUMNS))
    write_table(paths.examples, to_frame(_join(build_example_rows, done), EXAMPLE_COLUMNS))
    data = {row["run"]: row["data_checksum"] for row in rows}
    write_table(paths.samples, to_frame(build_sample_rows(done, data), SAMPLE_COLUMNS))
    return paths


def _join(build_rows: Callable[[Run], list[dict[str, Any]]], runs: Iterable[Run]) -> list[dict[str, Any]]:
    return [row for run in runs for row in build_rows(run)]


def read_ratings(experiment: Experiment) -> Ratings:
    """Read what the judge gave; empty where none is asked. Raises UserError when corrupt."""
    return judge.read_ratings(experiment) if experiment.evaluation.judge else {}


def read_results(run: Run, other_config_is_missing: bool = False) -> Results | None:
    """Read and check the documents of a run's folder; return None where the run has not finished.

    The history and the predictions are checked by their digests. Raises OtherConfigError, unless it counts
    as not finished, when the folder was written under another config, and UserError when a file is corrupt.
    """
    try:
        return _read_results(run)
    except OtherConfigError:
        if other_config_is_missing:
            return None
        raise


def _read_results(run: Run) -> Results | None:
    files, again = run.files, f"remove {run.folder} to train again"
    if not files.metrics.exists():
        if files.config.exists():
            _check_owner(run, files.config, read_sealed(files.config, again))
        return None
    remedy = f"remove {files.metrics} to evaluate again"
    found = read_sealed(files.metrics, remedy)
    # before anything else is asked of it: another config's folder may be of another layout too
    _check_owner(run, files.metrics, found)
    metrics = Metrics.parse(found, files.metrics, remedy)
    _check_digests(run, metrics)
    _check_score(metrics, files.metrics)
    _check_owner(run, files.config, RunConfig.read(files.config, again).model_dump())
    return Results(metrics, Environment.read(files.environment, again), digest(found))


def _check_owner(run: Run, file: Path, found: Mapping[str, Any]) -> None:
    """Raise OtherConfigError or UserError where a document is not this run's."""
    if found.get("hash") != run.hash:
        raise OtherConfigError(
            f"{file}: history from another config: written under {found.get('hash')}, the config now says "
            f"{run.hash}; move the folder away and train again, or restore the config"
        )
    if found.get("run") != run.id:
        raise UserError(f"{file}: belongs to run '{found.get('run')}', expected '{run.id}'")


def _check_digests(run: Run, metrics: Metrics) -> None:
    """Raise UserError where a file beside `metrics.json` is not what it was when that was written."""
    for name, expected in metrics.files.items():
        path = run.folder / name
        remedy = f"remove {run.folder} to train again"
        if path == run.files.predictions:  # Snakemake asks for the metrics, and makes both anew
            remedy = f"remove {run.files.metrics} to evaluate again"
        fault = "corrupt or truncated: its bytes are not those that were written"
        check_hash(path, expected, fault, remedy)


def _check_score(metrics: Metrics, file: Path) -> None:
    score = metrics.strict
    if score.test_n < 1 or abs(score.test_accuracy - score.test_correct / score.test_n) > 1e-6:
        raise UserError(
            f"{file}: 'strict.test_accuracy' is {score.test_accuracy}, expected test_correct / test_n = "
            f"{score.test_correct} / {score.test_n}"
        )


def build_result_row(run: Run, found: Results | None) -> dict[str, Any]:
    """Return a run's row of the table of results, by column; what is not known is None or NaN.

    found: of the finished run; without it the row's status is 'missing'.
    """
    row: dict[str, Any] = dict.fromkeys(RESULT_COLUMNS)
    row |= {
        "run": run.id,
        "experiment": run.experiment.experiment,
        **run.axes,
        "status": "missing",
        "adapter": run.dataset.adapter,
        "split": run.dataset.split,
        "pretrained": run.student.pretrained,
        "objective": run.method.method,
        "proposed": is_proposed(run.method),
        "method_settings": json.dumps(run.config["method_settings"], sort_keys=True),
        "config_hash": run.hash,
        "folder": str(run.folder),
    }
    if found:
        row |= {"status": "done", **_get_scores(found.metrics), **_get_provenance(found.environment)}
        row |= _get_overlap(run, found.environment.data_checksum)
        row["content"] = found.content
    return row


def _get_scores(metrics: Metrics) -> dict[str, Any]:
    strict, published = metrics.strict, metrics.published
    return {
        "accuracy": strict.test_accuracy,
        "correct": strict.test_correct,
        "n_test": strict.test_n,
        "n_groups": strict.test_groups,
        "step": strict.step,
        "valid_accuracy": strict.valid_accuracy,
        "collapsed": is_collapsed(metrics.measures.get("answers", {})),
        "mean_confidence": strict.mean_confidence,
        "accuracy_published": published.test_accuracy,
        "step_published": published.step,
        "n_train": metrics.sizes.get("train"),
        "n_valid": metrics.sizes.get("valid"),
        "evaluation_wall_s": metrics.evaluation_wall_s,
        # without one label there is no accuracy, also where an older `prepare` counted it as 0
        **{f"teacher_accuracy_{split}": score.accuracy if score.unparsed < score.n else None
           for split, score in metrics.teacher.items()},
    }  # fmt: skip


def _get_provenance(environment: Environment) -> dict[str, Any]:
    names = ("wall_s", "peak_memory_mb", "git_commit", "data_checksum", "device", "started_at", "finished_at")
    found = {name: getattr(environment, name) for name in names}
    ids = {f"ids_{split}": ids for split, ids in environment.split_ids.items()}
    return found | ids | _name_machine(environment.hardware)


def _get_overlap(run: Run, checksum: str) -> dict[str, int | None]:
    """Return what test shares with the other splits; empty where the prepared data are gone, or others."""
    found = read_overlap(run.prepared, checksum)
    return {
        OVERLAP[kind, shared.other]: count
        for shared in (found.shared if found else ()) if shared.split == "test"
        for kind, count in shared.counts.items()
    }  # fmt: skip


def _name_machine(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """Return the CPU model and the kernels that a run was computed with; None where its folder tells none.

    Of the kernels their instruction set and the digest of all that is recorded of them. A stepping of a CPU
    is no other model: no kernel is chosen by it. A run that went on on another kind of machine has several.
    """
    cpus, sets = [], []
    for each in (hardware, *hardware.get("earlier", [])):
        about, kernels = each.get("cpu_id"), each.get("kernels")
        if not isinstance(about, Mapping) or not isinstance(kernels, Mapping):
            return {"cpu": None, "kernels": None}
        model = [f"{key} {value}" for key, value in about.items() if key != "stepping"]
        cpus.append(", ".join([str(each.get("cpu")), *model]))
        sets.append(f"{kernels.get('aten')} {digest(dict(kernels))[:8]}")
    return {"cpu": " after ".join(dict.fromkeys(cpus)), "kernels": " after ".join(dict.fromkeys(sets))}


def build_history_rows(run: Run) -> list[dict[str, Any]]:
    """Return the history of a run, a dict for each step and metric, by column (HISTORY_COLUMNS).

    A step that a resumed run wrote twice counts once, as written last.
    """
    values: dict[tuple[int, str], dict[str, Any]] = {}
    for line in read_history(run.files.history):
        for metric, value in line.values.items():
            values[line.step, metric] = {
                **run.axes,
                "run": run.id,
                "step": line.step,
                "epoch": _or_nan(line.epoch),
                "metric": metric,
                "value": _or_nan(value),
            }
    return list(values.values())


def build_measure_rows(run: Run, metrics: Metrics, ratings: Ratings) -> list[dict[str, Any]]:
    """Return what was measured of a finished run beside its accuracy, a dict a measure (MEASURE_COLUMNS)."""
    measures = flatten_measures(metrics.measures)
    rated = ratings.get(run.id, {})
    measures |= {f"rationale/{name}": float(value) for name, value in rated.items() if value is not None}
    return [{**run.axes, "run": run.id, "measure": name, "value": value} for name, value in measures.items()]


def build_example_rows(run: Run) -> list[dict[str, Any]]:
    """Return the test examples of a finished run, a dict each (EXAMPLE_COLUMNS). Raises UserError."""
    return [
        {
            **run.axes,
            "run": run.id,
            "example": answer.id,
            "group": answer.group,
            "correct": answer.correct,
            "confidence": answer.confidence,
            **_get_option(answer, f"{run.files.predictions}: entry {number}"),
        }
        for number, answer in enumerate(read_answers(run.files.predictions), start=1)
    ]


def _get_option(answer: Answer, where: str) -> dict[str, Any]:
    """Return whether the likeliest option is the gold label, and its probability; NaN without options."""
    options, probabilities = answer.options, answer.option_probabilities
    if len(options) != len(probabilities):
        raise UserError(f"{where}: {len(options)} options, but {len(probabilities)} probabilities")
    if not options:
        return {"option_correct": None, "option_confidence": math.nan}
    best = max(range(len(options)), key=probabilities.__getitem__)
    return {"option_correct": options[best] == answer.gold, "option_confidence": probabilities[best]}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value

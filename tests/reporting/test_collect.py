"""The table of results: a row per run, and one clear line for every fault of a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json, write_json
from cotdistill.common.files import seal as seal_document
from cotdistill.config.models import Experiment
from cotdistill.runs.grid import Run, expand
from cotdistill.tables.collect import collect
from cotdistill.tables.columns import RESULT_COLUMNS
from cotdistill.tables.store import Tables

Made = Callable[..., Experiment]
Change = Callable[[Run, Path, str, Any], None]


def test_a_row_per_run_with_the_numbers_of_its_folder(made: Made) -> None:
    experiment = made()
    paths = collect(experiment)
    table = Tables(experiment).results
    assert list(table.columns) == list(RESULT_COLUMNS)
    assert list(table["run"]) == [run.id for run in expand(experiment)]
    assert set(table["status"]) == {"done"}
    for run, row in zip(expand(experiment), table.to_dict("records"), strict=True):
        strict = read_json(run.folder / "metrics.json")["strict"]
        assert (row["accuracy"], row["correct"]) == (strict["test_accuracy"], strict["test_correct"])
        assert row["config_hash"] == run.hash
        assert json.loads(row["method_settings"])["method"] == row["objective"]
    assert len(pd.read_csv(paths.results_csv)) == len(table)
    assert not list(paths.results.parent.glob(".*")), "temporary files are left"


def test_the_machine_of_a_run_is_in_its_row_and_not_of_an_older_folder(made: Made, change: Change) -> None:
    experiment = made(methods=["dss"], datasets=["cqa"], seeds=[0, 1, 2, 3])
    runs = expand(experiment)
    about = {"vendor_id": "GenuineIntel", "cpu family": "6", "model": "85", "stepping": "7"}
    kernels = {"aten": "AVX512", "blas": "mkl", "variables": {}}
    machines = [
        {"cpu": "Xeon", "cpu_id": about, "kernels": kernels},
        {"cpu": "Xeon", "cpu_id": {**about, "stepping": "4"}, "kernels": dict(reversed(kernels.items()))},
        {"cpu": "Xeon", "cpu_id": about, "kernels": {**kernels, "variables": {"MKL_CBWR": "COMPATIBLE"}}},
    ]
    machines[2]["earlier"] = [machines[0]]
    for run, hardware in zip(runs, machines, strict=False):
        change(run, run.files.environment, "hardware", hardware)
    collect(experiment)
    table = Tables(experiment).results
    assert list(table["cpu"][:3]) == ["Xeon, vendor_id GenuineIntel, cpu family 6, model 85"] * 3
    first, second, third = table["kernels"][:3]
    assert first == second != third and first.startswith("AVX512 ")
    assert third.endswith(f" after {first}"), "it was begun on another kind of machine"
    assert pd.isna(table["cpu"][3]) and pd.isna(table["kernels"][3])


def test_the_history_is_long_and_counts_a_repeated_step_once(made: Made, seal: Callable[[Run], None]) -> None:
    experiment = made(methods=["dss"], datasets=["cqa"], seeds=[0])
    (run,) = expand(experiment)
    file = run.files.history
    file.write_text(file.read_text() + '{"step": 100, "epoch": 2.0, "loss/total": null}\n')
    seal(run)
    collect(experiment)
    history = Tables(experiment).history
    total = history[history["metric"] == "loss/total"]
    assert list(total["step"]) == list(range(10, 101, 10))
    assert pd.isna(total["value"].iloc[-1]), "the value written last counts, and null is NaN"


def test_missing_runs_are_named_or_marked(made: Made) -> None:
    experiment = made(skip=("cqa/tiny/mi/gold/1/2",))
    with pytest.raises(UserError, match="1 of 18 runs .*: cqa/tiny/mi/gold/1/2; "):
        collect(experiment)
    collect(experiment, allow_missing=True)
    table = Tables(experiment).results
    assert list(table.loc[table["status"] == "missing", "run"]) == ["cqa/tiny/mi/gold/1/2"]
    assert "cqa/tiny/mi/gold/1/2" not in set(Tables(experiment).history["run"])


def test_a_table_of_missing_runs_keeps_its_types(made: Made) -> None:
    experiment = made(methods=["dss"], datasets=["cqa"], seeds=[0], skip=("cqa/tiny/dss/gold/1/0",))
    collect(experiment, allow_missing=True)
    assert str(Tables(experiment).results["n_test"].dtype) == "Int64"


def test_another_config_is_refused_by_both_hashes(made: Made) -> None:
    old = made(methods=["dss"], datasets=["cqa"], seeds=[0])
    new = old.model_copy(update={"training": old.training.model_copy(update={"steps": 7})})
    with pytest.raises(UserError, match="history from another config") as error:
        collect(new)
    assert "\n" not in str(error.value)
    assert expand(old)[0].hash in str(error.value) and expand(new)[0].hash in str(error.value)


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        ("metrics.json", "strict.test_accuracy", 1.5, "'strict.test_accuracy': .* less than or equal to 1"),
        ("metrics.json", "strict.test_accuracy", 0.9, "expected test_correct / test_n"),
        ("metrics.json", "strict.test_accuracy", None, "'strict.test_accuracy': .* valid number, found None"),
        ("metrics.json", "strict.test_n", "many", "'strict.test_n': .* valid integer, found 'many'"),
        ("metrics.json", "run", "cqa/other", "belongs to run 'cqa/other'"),
        ("environment.json", "wall_s", "long", "'wall_s': .* valid number, found 'long'"),
    ],
)
def test_a_wrong_value_is_one_line(
    made: Made, change: Change, name: str, path: str, value: Any, message: str
) -> None:
    experiment = made(methods=["dss"], datasets=["cqa"], seeds=[0])
    (run,) = expand(experiment)
    change(run, run.folder / name, path, value)
    with pytest.raises(UserError, match=message) as error:
        collect(experiment)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_what_an_older_config_left_is_missing_from_partial_tables(made: Made) -> None:
    """Training one of the runs anew failed, so that its folder is that of the config before."""
    grid: dict[str, Any] = {"methods": ["dss"], "datasets": ["cqa"], "seeds": [0, 1]}
    made(**grid)
    new = made(**grid, skip=("cqa/tiny/dss/gold/1/1",), training={"steps": 7})
    done, failed = expand(new)
    collect(new, allow_missing=True)
    table = Tables(new).results
    assert dict(zip(table["run"], table["status"], strict=True)) == {done.id: "done", failed.id: "missing"}
    assert set(Tables(new).examples["run"]) == set(Tables(new).history["run"]) == {done.id}
    with pytest.raises(UserError, match=f"{failed.folder}/metrics.json: history from another config"):
        collect(new)
    # an older layout is no reason to refuse it: it is not read
    metrics = read_json(failed.files.metrics)
    older = {key: metrics[key] for key in ("run", "hash", "strict")}
    write_json(failed.files.metrics, seal_document(older))
    collect(new, allow_missing=True)
    # training was as far as to write its config, and evaluation did not come
    failed.files.metrics.unlink()
    collect(new, allow_missing=True)
    with pytest.raises(UserError, match=f"{failed.folder}/config.json: history from another config"):
        collect(new)


def test_a_folder_of_another_layout_is_refused_in_one_line(made: Made, change: Change) -> None:
    experiment = made(methods=["dss"], datasets=["cqa"], seeds=[0])
    (run,) = expand(experiment)
    change(run, run.files.metrics, "schema_version", 1)
    with pytest.raises(UserError, match="metrics.json: written by another version .* to evaluate again"):
        collect(experiment)


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "environment.json", "history.jsonl"])
def test_a_truncated_file_is_one_line(made: Made, name: str) -> None:
    experiment = made(methods=["dss"], datasets=["cqa"], seeds=[0])
    file = expand(experiment)[0].folder / name
    file.write_text(file.read_text()[:-20])
    with pytest.raises(UserError, match="truncated"):
        collect(experiment)


def test_a_corrupt_table_is_one_line(made: Made) -> None:
    experiment = made(methods=["dss"], datasets=["cqa"], seeds=[0])
    with pytest.raises(UserError, match="run the collect stage first"):
        _ = Tables(experiment).results
    path: Path = collect(experiment).results
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="collect again"):
        _ = Tables(experiment).results

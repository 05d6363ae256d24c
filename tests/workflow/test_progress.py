"""`progress` and `plan`: read from run folders, at any moment of a grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cotdistill.config.models import Experiment
from cotdistill.orchestration import plan as planning
from cotdistill.orchestration.plan import describe, measure_steps
from cotdistill.orchestration.progress import Status, format_line, list_statuses
from cotdistill.runs.experiment import load, parse
from cotdistill.runs.grid import Run, expand

ROOT = Path(__file__).parents[2]


def experiment(**changes: Any) -> Experiment:
    values = {"experiment": "e", "datasets": ["demo"], "students": [{"name": "mini", "scratch": {}}],
              "methods": ["dss", "mi"], "seeds": [0, 1], "training": {"steps": 200}, **changes}  # fmt: skip
    return parse(values, "test.yaml")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    monkeypatch.chdir(tmp_path)
    return expand(experiment())


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def history(run: Run, text: str) -> None:
    write(run.state / "history.jsonl", text)


def finish(run: Run, *names: str, config_hash: str | None = None) -> None:
    for name in names:
        write(run.folder / name, json.dumps({"hash": config_hash or run.hash}))


def seen() -> list[tuple[str, int]]:
    return [(status.state, status.step) for status in list_statuses(experiment())]


def test_states_of_a_grid_under_way(runs: list[Run]) -> None:
    assert seen() == [("waiting", 0)] * 4
    history(runs[1], '{"step": 25, "loss/total": 3.5}\n{"step": 50, "valid/accuracy": 0.5}\n')
    finish(runs[2], "training.json")
    finish(runs[3], "training.json", "metrics.json")
    assert seen() == [("waiting", 0), ("stopped", 50), ("trained", 200), ("done", 200)]


@pytest.mark.parametrize(
    "tail",
    ['{"step": 75, "loss/to', '{"step": 7', "{", '{"step": "?"}', "[]", '{"loss": 1}', "\x00\x00", "\n\n"],
)
def test_last_line_may_be_half_written(tail: str, runs: list[Run]) -> None:
    history(runs[0], '{"step": 25}\n{"step": 50}\n' + tail)
    assert seen()[0] == ("stopped", 50)


@pytest.mark.parametrize("text", ["", '{"ste', "\n"])
def test_history_without_a_whole_line(text: str, runs: list[Run]) -> None:
    history(runs[0], text)
    assert seen()[0] == ("stopped", 0)


def test_only_the_end_of_a_long_history_is_read(runs: list[Run]) -> None:
    history(runs[0], "".join(json.dumps({"step": step, "note": "é" * 50}) + "\n" for step in range(1, 151)))
    assert seen()[0] == ("stopped", 150)


def test_what_another_config_left_is_to_be_redone(runs: list[Run]) -> None:
    finish(runs[0], "training.json", "metrics.json", config_hash="0" * 16)
    finish(runs[1], "training.json")
    finish(runs[1], "metrics.json", config_hash="0" * 16)
    write(runs[2].folder / "metrics.json", "{")
    write(runs[0].folder / "state" / ("0" * 16) / "history.jsonl", '{"step": 99}\n')
    assert seen() == [("waiting", 0), ("trained", 200), ("waiting", 0), ("waiting", 0)]


def test_line_of_a_grid_that_has_not_begun(runs: list[Run]) -> None:
    assert format_line(list_statuses(experiment()), 0.0, 0) == "[ 0.0 min] 0/4 runs done"


def test_line_names_what_runs_and_what_is_left(runs: list[Run]) -> None:
    found = [Status(runs[0], "done", 200), Status(runs[1], "running", 100), Status(runs[2], "waiting", 0),
             Status(runs[3], "waiting", 0)]  # fmt: skip
    # 300 of 800 steps in 6 minutes: 500 are left
    assert format_line(found, 360.0, 0) == (
        f"[ 6.0 min] 1/4 runs done, running: {runs[1].id} 50%, about 10.0 min of training left"
    )
    # 200 of the 300 were there before
    assert format_line(found, 360.0, 200).endswith("about 30.0 min of training left")
    assert "left" not in format_line(found, 360.0, 300), "no step since: no estimate"


def test_line_of_many_runs_stays_short(runs: list[Run]) -> None:
    found = [Status(run, "running", 20 * n) for n, run in enumerate(runs)]
    text = format_line(found, 60.0, 0)
    assert text.count("%") == 3 and " ...," in text and "\n" not in text


def test_line_at_the_end(runs: list[Run]) -> None:
    done = [Status(run, "done", 200) for run in runs]
    assert format_line(done, 90.0, 0) == "[ 1.5 min] 4/4 runs done"


# --- plan


def test_plan_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = describe(load(ROOT / "config.yaml"))
    *rows, blank, total = text.splitlines()
    assert total == "40 cells, 200 runs, 2,000,000 steps; hours unknown: no earlier run of the same kind"
    assert blank == "" and len(rows) == 41
    assert " ".join(rows[0].split()) == "dataset student method labels fraction seeds steps a run hours"
    assert all(row.split()[-2:] == ["10,000", "?"] for row in rows[1:])


def measure(run: Run, wall: Any, steps: Any = 200) -> None:
    write(run.folder / "config.json", json.dumps({"config": run.config}))
    write(run.folder / "environment.json", json.dumps({"wall_s": wall}))
    write(run.folder / "training.json", json.dumps({"steps": steps}))


def test_plan_counts_hours_from_runs_of_the_same_kind(runs: list[Run]) -> None:
    for run, hours in zip(runs[:2], (1, 3), strict=True):  # dss: 2 hours for 200 steps at the median
        measure(run, hours * 3600)
    *_, dss, mi, _, total = describe(experiment(training={"steps": 400}, seeds=[7, 8, 9])).splitlines()
    assert dss.split()[2] == "dss" and dss.split()[-1] == "12.00"
    assert mi.split()[2] == "mi" and mi.split()[-1] == "?"
    assert total == (
        "2 cells, 6 runs, 2,400 steps; about 12.00 compute hours (and 3 runs of a kind not run before), "
        "from earlier runs of the same kind"
    )


def test_other_settings_are_another_kind(runs: list[Run]) -> None:
    measure(runs[0], 3600)
    assert "hours unknown" in describe(experiment(training={"steps": 200, "batch_size": 128}))
    assert "hours unknown" not in describe(experiment(experiment="other", training={"steps": 10}))


@pytest.mark.parametrize(("wall", "steps"), [(None, 200), ("3600", 200), (3600, 0), (3600, None)])
def test_folders_that_tell_nothing_are_passed_over(wall: Any, steps: Any, runs: list[Run]) -> None:
    measure(runs[0], wall, steps)
    write(runs[1].folder / "config.json", "{")
    write(runs[2].folder / "config.json", "[]")
    assert measure_steps(Path("results")) == {}


def test_plan_of_the_finished_grid_knows_its_hours(untouched: Any) -> None:
    found = untouched.run("cotdistill", "plan", "--config", "tiny.yaml")
    assert found.returncode == 0, found.stdout
    total = found.stdout.splitlines()[-1]
    assert total.startswith("2 cells, 4 runs, 16 steps; about 0.0") and "kind not run before" not in total
    assert "?" not in found.stdout


def test_finished_grid_is_done(untouched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(untouched.root)
    assert [(s.state, s.step) for s in list_statuses(load("tiny.yaml"))] == [("done", 4)] * 4


def test_plan_predicts_the_grid_s_minutes_from_its_earlier_jobs(runs: list[Run], monkeypatch: Any) -> None:
    monkeypatch.setattr(planning, "count_cores", lambda: 2)
    times = Path(runs[0].experiment.results, runs[0].experiment.experiment, "benchmarks")

    def took(job: str, seconds: float) -> None:
        write(times / f"{job}.tsv", f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t1\n")

    for run in runs:
        measure(run, 600)
        assert "minutes" not in describe(experiment())
        took(f"train/{run.id}", 640)
        took(f"evaluate/{run.id}", 20)
    took("collect", 30)
    took("prepare/colours/small", 90)
    # four runs of 600 s and 60 s beside their steps, two at once, and the stages
    assert describe(experiment()).endswith("; 24 minutes or so on the 2 cores here")
    write(times / "collect.tsv", "torn")
    assert describe(experiment()).endswith("; 24 minutes or so on the 2 cores here")
    assert "minutes" not in describe(experiment(training={"steps": 200, "batch_size": 128}))

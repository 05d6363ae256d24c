"""Tracking that is cut short twice, before or after any call of the store, leaves each run there once."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from cotdistill.config.models import Experiment
from cotdistill.config.store import get_uri
from cotdistill.tables.collect import collect
from cotdistill.tracking import track as track_tables

CALLS = ("create_run", "delete_run", "log_artifact", "log_batch", "log_dict", "log_inputs", "set_tag",
         "set_terminated")  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_network")


class Cut(BaseException):
    """Stands for a kill: nothing of ours runs after it."""


@contextmanager
def cut_at(call: int, answered: bool) -> Iterator[list[int]]:
    """Cut tracking short at its n-th call of the store: before it, or after it when `answered`."""
    made = [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            made[0] += 1
            if made[0] == call and not answered:
                raise Cut
            result = real(*arguments, **options)
            if made[0] == call:
                raise Cut
            return result

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))
        yield made


@pytest.fixture
def on_new_store(
    made: Callable[..., Experiment], laid_out_store: Path, config_of: Any
) -> Callable[[str], Experiment]:
    """Three runs in two cells; gives the experiment with an empty store of that name."""
    experiment = made(
        datasets=["cqa"], methods=["dss", "mi"], seeds=[0, 1], steps=20, skip=("cqa/tiny/mi/gold/1/1",)
    )
    collect(experiment, allow_missing=True)

    def give(name: str) -> Experiment:
        database = shutil.copy(laid_out_store, Path(experiment.results, name))
        return config_of(experiment, f"sqlite:///{database}")[1]

    return give


def all_runs(experiment: Experiment) -> list[Any]:
    """The runs of the store, those too that are deleted."""
    client = MlflowClient(get_uri(experiment))
    found = client.get_experiment_by_name(experiment.experiment)
    return client.search_runs([found.experiment_id], run_view_type=ViewType.ALL) if found else []


def track_cut(experiment: Experiment, call: int, answered: bool) -> int:
    """Track, cut short at a call; returns how many calls came."""
    with cut_at(call, answered) as calls, suppress(Cut):
        track_tables(experiment)
    return calls[0]


@pytest.mark.slow
def test_cut_short_twice_at_any_call_each_run_stands_once(on_new_store: Any, content: Any) -> None:
    whole = on_new_store("whole.db")
    count = track_cut(whole, 0, False)
    expected = content(whole)
    assert len(expected) == 5 and count > 30
    moments = random.Random(7)
    for call in range(1, count + 1, 5):
        answered = bool(call % 2)
        experiment = on_new_store(f"{call}.db")
        assert track_cut(experiment, call, answered) == call
        track_cut(experiment, moments.randrange(1, 12), not answered)
        track_tables(experiment)
        assert content(experiment) == expected, f"cut at call {call}"
        assert len(all_runs(experiment)) == 5, f"cut at call {call}: an orphan stands beside its repetition"


@pytest.mark.parametrize("name", ["log_batch", "log_inputs", "set_terminated"])
def test_a_run_that_was_cut_short_is_completed_where_it_stands(
    on_new_store: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    experiment = on_new_store("cut.db")
    with monkeypatch.context() as patch, pytest.raises(Cut):
        real = getattr(MlflowClient, name)

        def cut(*arguments: Any, **options: Any) -> Any:
            real(*arguments, **options)
            raise Cut

        patch.setattr(MlflowClient, name, cut)
        track_tables(experiment)
    before = {run.info.run_id for run in all_runs(experiment)}
    assert before and track_tables(experiment)["added"] == 3
    after = {run.info.run_id for run in all_runs(experiment)}
    assert before < after and len(after) == 5


def test_a_run_that_a_server_made_twice_is_deleted_once(
    on_new_store: Any, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, experiment = on_new_store("whole.db"), on_new_store("twice.db")
    track_tables(whole)
    with monkeypatch.context() as patch:
        real = MlflowClient.create_run

        def create_twice(*arguments: Any, **options: Any) -> Any:
            real(*arguments, **options)  # its answer was lost
            return real(*arguments, **options)

        patch.setattr(MlflowClient, "create_run", create_twice)
        track_tables(experiment)
    assert content(experiment) == content(whole), "content fails where a run stands twice"

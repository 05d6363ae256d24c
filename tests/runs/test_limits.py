"""A run is held against its own settings, against what its job asks for, and against the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common import machine
from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment, ScratchStudent
from cotdistill.jobs import launch
from cotdistill.orchestration import fit
from cotdistill.runs import limits
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import Run, expand
from cotdistill.students import scratch
from cotdistill.students.sizes import count_weights

Make = Callable[..., Experiment]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """An experiment of one run, on a machine of 4 cores and 8,000 MB."""
    monkeypatch.setattr(machine, "count_cores", lambda: 4)
    monkeypatch.setattr(machine, "measure_memory_mb", lambda: 8_000)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)

    def experiment(
        compute: dict[str, Any] | None = None, scratch: dict[str, Any] | None = None, **training: Any
    ) -> Experiment:
        student = {"name": "tiny", "scratch": scratch or {}, "compute": compute or {}}
        return parse({
            "experiment": "limits", "datasets": ["demo"], "students": [student], "methods": ["dss"],
            "seeds": [0], "results": str(tmp_path), "training": {"device": "cpu", **training},
        }, "test")  # fmt: skip

    return experiment


def only(experiment: Experiment) -> Run:
    (run,) = expand(experiment)
    return run


def warn(experiment: Experiment, hours: float | None = None) -> list[str]:
    return fit.list_warnings(experiment, lambda run: hours)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"d_model": 24, "d_ff": 40, "d_kv": 7, "heads": 5, "layers": 3}, {"heads": 1, "layers": 1}],
)
def test_weights_are_counted_as_they_are_built(sizes: dict[str, int]) -> None:
    settings = ScratchStudent(**sizes)
    built = scratch.build(settings, vocabulary=77, seed=0)
    assert count_weights(settings, 77) == sum(weight.numel() for weight in built.parameters())


@pytest.mark.parametrize("processes", [5, 64, 1000])
def test_more_cpu_processes_than_cores_are_never_started(
    make: Make, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(launch.subprocess, "Popen", lambda *command, **more: started.append(command))
    experiment = make({"mem_mb": 100_000}, gpus=processes, batch_size=processes)
    words = f"{processes:,} CPU processes ('training.gpus') on 4 cores"
    with pytest.raises(UserError, match="expected at most one a core") as caught:
        launch.launch(only(experiment))
    assert words in str(caught.value)
    with pytest.raises(UserError, match="CPU processes"):
        fit.check_local(experiment)
    assert not started
    assert [line for line in warn(experiment) if line.startswith("warning: demo with") and words in line]


def test_where_there_is_no_gpu_auto_is_held_against_the_cores(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cotdistill.training import devices

    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launch.subprocess, "Popen", lambda *command, **more: pytest.fail("started"))
    with pytest.raises(UserError, match="CPU processes"):
        launch.launch(only(make(gpus=8, device="auto")))


def test_a_job_that_fits_is_started(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(Exception):
        pass

    def start(*command: Any, **more: Any) -> None:
        raise Started

    monkeypatch.setattr(launch.subprocess, "Popen", start)
    with pytest.raises(Started):
        launch.launch(only(make(gpus=4)))
    assert warn(make(gpus=4)) == []


@pytest.mark.parametrize("compute", [{"threads": 33}, {"threads": 1024}])
def test_threads_that_only_wait_for_each_other_are_refused(make: Make, compute: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"threads \('compute.threads' of each process\) on 4 cores"):
        limits.check_machine(only(make(compute)), "cpu")
    limits.check_machine(only(make({"threads": 8})), "cpu")  # slow, but the numbers of eight threads


@pytest.mark.parametrize(
    "sizes", [{"layers": 512, "d_model": 1024}, {"d_model": 65_536}, {"d_ff": 65_536, "d_model": 4096}]
)
def test_a_student_larger_than_what_its_job_asks_for_is_refused(make: Make, sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"layers alone take [\d,]+ MB \(.*\), 'compute.mem_mb' is 2,000"):
        make(scratch=sizes)


def test_a_student_larger_than_the_machine_is_refused(make: Make) -> None:
    run = only(make({"mem_mb": 64_000}, {"layers": 48, "d_model": 1024, "d_ff": 4096}))
    with pytest.raises(UserError, match=r"MB for the student's weights and what trains them, of 8,000 MB"):
        limits.check_machine(run, "cpu")
    wide = only(make({"mem_mb": 64_000}, {"d_model": 1024}))
    limits.check_machine(wide, "cpu", vocabulary=1000)
    with pytest.raises(UserError, match="smaller d_model"):
        limits.check_machine(wide, "cpu", vocabulary=1_000_000)


def test_a_vocabulary_that_may_become_too_large_is_a_warning(make: Make) -> None:
    (line,) = warn(make(scratch={"vocabulary": 1_000_000, "d_model": 512}))
    assert "a tokenizer of all 1,000,000 pieces" in line and "'compute.mem_mb' is 2,000" in line


def test_a_run_longer_than_its_time_limit_is_a_warning(make: Make) -> None:
    (line,) = warn(make({"runtime": 30}), hours=1.5)
    assert "a run takes about 90 minutes, 'compute.runtime' is 30" in line
    assert warn(make({"runtime": 100}), hours=1.5) == []


@pytest.mark.parametrize(
    ("training", "rows", "words"),
    [
        ({"steps": 10_000_000}, 5000, "10,000,000 steps pass 5,000 training rows 128,000 times"),
        ({"batch_size": 4096}, 900, "batches of 4,096 ('training.batch_size') hold all 900 rows"),
        ({}, 720, None),  # the published settings on the smallest of the four datasets
    ],
)
def test_steps_and_batches_are_held_against_the_prepared_rows(
    make: Make, training: dict[str, int], rows: int, words: str | None
) -> None:
    experiment = make(**training)
    folder = only(experiment).prepared
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(f'{{"sizes": {{"train": {rows}}}}}')
    assert [line.removeprefix("warning: demo with tiny: ").removesuffix(": is that meant?")
            for line in warn(experiment)] == ([words] if words else [])  # fmt: skip


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"steps": 300, "warmup_steps": 500}, "'training.warmup_steps' is 500 of 300 steps"),
        ({"batch_size": 4, "gpus": 5}, "'training.gpus' is 5 for batches of 4 examples"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    make: Make, training: dict[str, int], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        make(**training)
    assert words in str(caught.value) and "dataset 'demo' with student 'tiny'" in str(caught.value)


def test_less_addresses_than_torch_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "measure_address_space_mb", lambda: 976)
    with pytest.raises(UserError, match="`ulimit -v` allows 976 MB of addresses; expected at least 1,500 MB"):
        limits.check_address_space()
    limits.check_address_space(limits.READERS_MB)

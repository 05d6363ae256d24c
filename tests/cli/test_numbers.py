"""Numbers on the command line and in the environment, and memory that runs out: one line, and an end."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.cli import main
from cotdistill.cli.commands import COMMANDS
from cotdistill.common import machine
from cotdistill.common.errors import describe_shortage

RUN = ("train", "--run", "demo/mini/dss/gold/1/0")


@pytest.mark.parametrize(
    ("command", "option", "value", "range_"),
    [
        *[("reproduce", "--cores", value, "from 1 to 2, the cores of this machine")
          for value in ("0", "-1", "1000000000", "3", "1.5", "nan", "9" * 5000)],
        *[("doctor", "--job-timeout", value, "seconds from 0 to 86,400")
          for value in ("nan", "-1", "1e300", "inf", "long")],
        *[("track", "--follow", value, "86,400") for value in ("nan", "-1", "0", "1e300", "often")],
    ],
)  # fmt: skip
def test_a_number_out_of_range_on_the_command_line(
    command: str, option: str, value: str, range_: str, work: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(machine, "count_cores", lambda: 2)
    with pytest.raises(SystemExit) as ended:
        main([command, f"{option}={value}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"argument {option}: " in said and range_ in said and "_parse" not in said


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'; expected a whole number from 1 to 1024"),
        ({"WORLD_SIZE": "1000000000"}, "WORLD_SIZE is '1000000000'"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but training.gpus is 1; unset RANK"),
        ({"RANK": "3"}, "RANK is '3'; expected a whole number from 0 to 0"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({"RANK": "9" * 5000}, "RANK is '999"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but training.gpus is 1"),
    ],
)
def test_what_torchrun_left_in_the_environment(
    environment: dict[str, str], words: str, configure: Callable[..., None], refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    configure()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = refused(*RUN)
    assert words in line and "unset RANK, LOCAL_RANK and WORLD_SIZE" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 40000000000000 bytes.\nmore lines"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=lambda error: str(error)[:20],
)  # fmt: skip
def test_memory_that_runs_out_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, configure: Callable[..., None],
    refused: Callable[..., str],
) -> None:  # fmt: skip
    def run(options: Any) -> None:
        raise error

    configure()
    monkeypatch.setitem(COMMANDS, "plan", run)
    line = refused("plan")
    assert line.startswith("not enough memory here (") and "smaller student, training.batch_size" in line


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ImportError("no module"), ValueError()])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert describe_shortage(error) is None


def test_an_allocation_that_torch_refuses_is_known_for_what_it_is() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert "not enough memory here" in str(describe_shortage(caught.value))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds processes to it")
@pytest.mark.parametrize("megabytes", [450, 900, 1400])
def test_training_with_few_addresses_ends_in_one_line(
    megabytes: int, configure: Callable[..., None], process: Callable[..., Any],
    complaint: Callable[[Any], str],
) -> None:  # fmt: skip
    configure()
    most = megabytes * 2**20
    found = process(*RUN, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)))
    assert complaint(found).startswith(f"`ulimit -v` allows {megabytes:,} MB of addresses; expected at least")


def test_a_grid_of_a_thousand_processes_is_refused_by_every_command(
    configure: Callable[..., None], refused: Callable[..., str], cotdistill: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from cotdistill.jobs import launch

    monkeypatch.setattr(machine, "count_cores", lambda: 2)
    monkeypatch.setattr(launch.subprocess, "Popen", lambda *command, **more: pytest.fail("started"))
    configure(training={"gpus": 1000, "batch_size": 1000})
    words = "1,000 CPU processes ('training.gpus') on 2 cores; expected at most one a core"
    assert words in cotdistill("plan").out
    assert words in refused(*RUN)
    Path("Snakefile").touch()
    assert words in refused("reproduce")

"""`cotdistill reproduce` that is stopped: by a real terminal, by signals; what it says and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from calls import COMMAND, Calls, Terminal, until

STOPPED = "stopped: 1 of 4 runs done, 1 to go on from their saved state, 2 not begun"
GOES_ON = (
    "nothing of that is lost; the same command goes on: "
    "python -m cotdistill reproduce --config tiny.yaml --cores 2"
)


@pytest.fixture
def calls(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A grid of four runs: one done, one with a saved state; its job works for a minute."""
    made = Calls(bench)
    made.prepare(seconds=60)
    monkeypatch.chdir(bench.root)
    done, begun, *_ = bench.runs()
    for name in ("training.json", "metrics.json"):
        write(done.folder / name, f'{{"hash": "{done.hash}"}}')
    write(begun.state / "history.jsonl", '{"step": 2}\n')
    return made


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_ctrl_c_in_a_terminal(calls: Calls) -> None:
    terminal = Terminal(calls)
    terminal.wait_for(calls.works, "a job that works")
    terminal.press_ctrl_c()
    assert terminal.finish() == 130
    lines = terminal.text.splitlines()
    assert lines[-2:] == [STOPPED, GOES_ON]
    assert "stopping: runs in training save their state first (Ctrl-C again: end at once)" in lines
    for word in ("Traceback", "Error", "did not finish", "KeyboardInterrupt", "MISSING"):
        assert word not in terminal.text
    assert [line for line in calls.told() if "got" in line] == ["job got SIGINT"], "once"
    assert calls.told()[-1] == "snakemake ends", "it was waited for"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
@pytest.mark.parametrize("whole", [False, True], ids=["one process", "its group"])
def test_signal(number: signal.Signals, code: int, whole: bool, calls: Calls) -> None:
    process = calls.start()
    until(calls.works, "a job that works")
    (os.killpg if whole else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.splitlines()[-2:] == [STOPPED, GOES_ON]
    assert [line for line in calls.told() if "got" in line] == ["job got SIGINT"]
    assert calls.told()[-1] == "snakemake ends" and calls.is_gone()
    assert "Traceback" not in out + err


def test_second_ctrl_c_ends_what_goes_on(calls: Calls) -> None:
    calls.prepare(seconds=60, deaf=1)
    terminal = Terminal(calls)
    terminal.wait_for(calls.works, "a job that works")
    terminal.press_ctrl_c()
    terminal.wait_for(lambda: "job got SIGINT" in calls.told(), "the first request")
    terminal.press_ctrl_c()
    assert terminal.finish() == 130
    assert terminal.text.splitlines()[-2:] == [STOPPED, GOES_ON]
    assert "ending at once, within 10 s" in terminal.text
    assert calls.is_gone()


def test_what_minds_no_signal_is_killed_after_the_second(calls: Calls) -> None:
    calls.bench.edit("orchestration/snakemake.py", "GRACE = 10.0", "GRACE = 1.0")
    calls.prepare(seconds=60, deaf=9)
    process = calls.start()
    until(calls.works, "a job that works")
    process.send_signal(signal.SIGTERM)
    until(lambda: "job got SIGINT" in calls.told(), "the first request")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].splitlines()[-2:] == [STOPPED, GOES_ON]
    assert process.returncode == 143, "what the first request asked for"
    assert calls.is_gone()


def test_an_ignored_hangup_stays_ignored(calls: Calls) -> None:
    calls.prepare(seconds=3)
    process = calls.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
    until(calls.works, "a job that works")
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert "stopped" not in err and not [line for line in calls.told() if "got" in line]


def test_a_failed_run_has_its_own_words_first(calls: Calls) -> None:
    process = calls.start()
    until(calls.works, "a job that works")
    write(Path("results/tiny/logs/train/a.log"), "step 3\nerror: no room\nwarning: said while ending\n")
    write(Path("results/tiny/logs/train/b.log"), "error: interrupted\n")
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1].splitlines()
    assert err[-3:] == ["results/tiny/logs/train/a.log: no room", STOPPED, GOES_ON]
    assert not [line for line in err if "b.log" in line]


LOG = """\
Error in rule train:
    message: None
    jobid: 17
    input: prepared/manifest.json
    output: runs/a/training.json
    log: results/tiny/logs/train/a run.log (check log file(s) for error details)
    shell:
        exec cotdistill train
        (command exited with non-zero exit code)
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("step 3\nstep 4\n", "; its last line: step 4"),
        ("", ""),
        (None, ""),
        ("Traceback (most recent call last):\nMemoryError\n", "; its last line: MemoryError"),
    ],
    ids=["killed", "empty log", "no log", "memory"],
)
def test_a_job_that_ended_without_a_word_is_named(text: str | None, said: str, calls: Calls) -> None:
    calls.prepare(said=LOG, code=1)
    if text is not None:
        path = Path("results/tiny/logs/train/a run.log")
        write(path, text)
    found = calls.bench.run(*COMMAND[2:])
    assert found.returncode == 1
    cause = "ended without an error of its own (killed, or out of memory?)"
    line = f"results/tiny/logs/train/a run.log: {cause}{said}"
    assert f"error: the grid did not finish:\n{line}\n" in found.stdout
    assert "message: None" not in found.stdout and "jobid" not in found.stdout


def test_the_command_is_that_which_was_typed(calls: Calls) -> None:
    """`make reproduce` calls the program by its path, where no environment is activated."""
    script = Path("bin", "cotdistill")
    write(script, f"#!{sys.executable}\nimport sys\nfrom cotdistill.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    values = yaml.safe_load(Path("tiny.yaml").read_text())
    Path("my grid.yaml").write_text(yaml.safe_dump(values))
    command = [str(script), "reproduce", "--config", "my grid.yaml"]
    for path, name in (("", "bin/cotdistill"), ("bin:", "cotdistill")):
        environment = calls.bench.environment()
        environment["PATH"] = path + environment["PATH"]
        process = subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE)
        until(lambda: calls.works(), "a job that works")
        process.send_signal(signal.SIGINT)
        last = process.communicate(timeout=60)[1].splitlines()[-1]
        assert last.endswith(f": {name} reproduce --config 'my grid.yaml'")
        Path("fake.txt").unlink()


@pytest.mark.slow
def test_ctrl_c_with_the_real_snakemake(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.root)
    bench.configure(methods=["dss"], training={"steps": 20_000, "eval_every": 20_000, "checkpoint_every": 2})
    terminal = Terminal(Calls(bench))
    states = Path("results/tiny/runs")
    terminal.wait_for(lambda: len(list(states.glob("**/step-*/state.json"))) > 2, "states of runs")
    terminal.press_ctrl_c()
    assert terminal.finish() == 130
    lines = terminal.text.splitlines()
    assert lines[-2] == "stopped: 0 of 2 runs done, 2 to go on from their saved state"
    assert lines[-1] == GOES_ON
    assert "WorkflowError" not in terminal.text and "jobid" not in terminal.text
    assert not Path("results/tiny/tables").exists(), "nothing failed: no tables of a part"
    status = bench.run("cotdistill", "status", "--config", "tiny.yaml").stdout
    assert "2 runs: 2 stopped" in status
    assert "__onerror" not in Path("results/tiny/logs/snakemake.log").read_text(), "of the Snakefile itself"
    assert not list(Path(".snakemake/locks").glob("*")), "it had time to unlock the folder"

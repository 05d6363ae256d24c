"""Commands may hang, flood, be missing or speak in tongues: the answer is one printable line, in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import list_some
from cotdistill.orchestration.doctor import shell
from cotdistill.orchestration.doctor.finding import Finding, make_printable
from cotdistill.orchestration.doctor.shell import run

Fake = Callable[..., Path]


def test_a_good_answer_has_its_output_and_exit_code(fake: Fake) -> None:
    fake("talk", "echo one; echo; echo two; echo three >&2")
    answer = run("talk")
    assert answer.good and answer.lines == ["one", "two"] and answer.said == "talk: three"


def test_a_failure_is_told_in_the_commands_own_words(fake: Fake) -> None:
    fake("sbatch", "echo 'sbatch: error: no such account' >&2; echo 'sbatch: gave up' >&2; exit 3")
    answer = run("sbatch")
    assert answer.code == 3 and not answer.good
    assert answer.said == "sbatch: error: no such account; sbatch: gave up"
    fake("silent", "exit 9")
    assert run("silent").said == "silent: exit code 9"


def test_a_hanging_command_is_stopped_with_its_children(fake: Fake, tmp_path: Path) -> None:
    fake("hang", f"/bin/sleep 60 & echo $! > {tmp_path}/child; trap '' TERM; wait; /bin/sleep 60")
    started = time.monotonic()
    answer = run("hang", timeout=0.5)
    assert time.monotonic() - started < 3
    assert answer.code is None and answer.said == "hang: no answer in 0.5 s"
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 10  # it was killed, but a busy machine may not have got round to it
    while alive(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_child_that_keeps_the_output_open_holds_nobody_up(fake: Fake) -> None:
    fake("leave", "/bin/sleep 60 & echo done")
    started = time.monotonic()
    answer = run("leave", timeout=20)
    assert answer.good and answer.lines == ["done"] and time.monotonic() - started < 5


def test_a_command_that_closes_its_output_and_stays_is_stopped(fake: Fake) -> None:
    fake("stay", "exec >&- 2>&-; /bin/sleep 60")
    assert run("stay", timeout=0.5).said == "stay: no answer in 0.5 s"


def test_a_flood_is_cut_off(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "MOST", 1000)
    fake("flood", "while :; do echo water water water; done")
    answer = run("flood", timeout=20)
    assert not answer.good and answer.said == "flood: stopped after 1000 bytes of output"
    assert len(answer.out) < 200_000


def test_a_missing_or_unusable_command_is_an_answer(fake: Fake) -> None:
    assert run("nowhere").said == "nowhere: no such command on this machine"
    fake("locked").chmod(0o644)
    assert "locked: " in run("locked").said and run("locked").code is None
    assert run("fa\0il").code is None


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", errors="replace")))
def test_every_finding_is_one_printable_line(text: str) -> None:
    line = Finding("FAIL", "slurm", text, text).line()
    assert line.isprintable() and line.startswith("FAIL  slurm")
    assert len(make_printable(text)) <= 400


def test_what_a_terminal_acts_on_is_taken_out() -> None:
    assert make_printable("\x1b[2Jred\r\n\u202eevil\x07") == "?[2Jred ?evil?"


def test_long_lists_are_counted_not_printed() -> None:
    assert list_some(["a", "b"], 2) == "a, b" and list_some(["a", "b", "c", "d"], 2) == "a, b and 2 more"

"""The judge against a server of our own: one that rates, fails, stalls, drips, or talks nonsense."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json, write_json, write_jsonl
from cotdistill.evaluation import chat, judge
from cotdistill.runs.experiment import parse
from cotdistill.runs.grid import expand

Reply = tuple[int, dict[str, str], bytes]


def said(text: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Server(ThreadingHTTPServer):
    """Answers with `reply(number of the request, from 0)`; keeps what was asked."""

    daemon_threads = True

    def __init__(self, reply: Callable[[int], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.asked, self.keys = reply, [], []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.append(self.headers.get("Authorization"))
        with contextlib.suppress(OSError):
            self._find_answer(*self.server.reply(len(self.server.asked) - 1))

    def _find_answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if status == 0:  # never answers
            self.server.over.wait(20)
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if "X-Drip" not in headers:
            self.wfile.write(body)
            return
        for place in range(len(body)):  # never silent for long, and never done
            self.wfile.write(body[place : place + 1])
            self.wfile.flush()
            if self.server.over.wait(0.05):
                return

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int], Reply]], Server]]:
    servers = []

    def start(reply: Callable[[int], Reply]) -> Server:
        servers.append(Server(reply))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are noted instead of made."""
    import tenacity.nap

    made: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", made.append)
    return made


def experiment(folder: Path, url: str, **settings: Any) -> Any:
    """Two finished runs of eight examples, and one that is not finished."""
    values = {
        "experiment": "rated", "datasets": ["demo"], "students": [{"name": "tiny", "scratch": {}}],
        "methods": ["dss", "mi"], "seeds": [0, 1], "exclude": [{"method": ["mi"], "seed": [1]}],
        "results": str(folder),
        "evaluation": {"judge": {"url": url, "model": "grader", "examples": 5, "timeout_s": 5, **settings}},
    }  # fmt: skip
    made = parse(values, "test")
    for run in expand(made)[::2]:
        rows = [{"id": f"e{n}", "input": f"question {n}?", "gold": "nest", "prediction": "nest",
                 "correct": True, "confidence": 0.5, "rationale": f"{run.id} says {n}"}
                for n in range(8)]  # fmt: skip
        write_jsonl(run.folder / "predictions.jsonl", rows)
        write_json(run.folder / "metrics.json", {"hash": run.hash})
    return made


def numbers(made: Any) -> list[tuple[Any, ...]]:
    path = judge.judge(made)
    runs = read_json(path)["runs"]
    assert runs == judge.read_ratings(made)
    return [tuple(values.values()) for values in runs.values()]


def test_ratings_are_means_over_the_same_examples_of_each_run(serve: Any, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv(chat.KEY, " secret-1 \n")
    server = serve(lambda number: (200, {}, said(str(number % 5 + 1))))
    made = experiment(tmp_path, server.url)
    assert numbers(made) == [(3.0, 5, 0), (3.0, 5, 0)]
    assert list(judge.read_ratings(made)) == ["demo/tiny/dss/gold/1/0", "demo/tiny/mi/gold/1/0"]
    asked = [body["messages"][1]["content"] for body in server.asked]
    questions = [text.split("?")[0] for text in asked]
    assert len(asked) == 10 and questions[:5] == questions[5:] and len(set(questions)) == 5
    assert "Correct answer:\nnest" in asked[0] and "demo/tiny/dss/gold/1/0 says" in asked[0]
    assert server.asked[0] | {"messages": None} == {
        "model": "grader", "messages": None, "temperature": 0, "max_tokens": 16,
    }  # fmt: skip
    assert set(server.keys) == {"Bearer secret-1"}
    kept = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(list((tmp_path / "rated/judge").iterdir())) == 10
    assert not any("secret" in text for text in kept), "the key is written nowhere"


def test_asking_again_costs_nothing_and_a_corrupt_answer_is_asked_for_again(serve: Any, tmp_path: Path):
    server = serve(lambda number: (200, {}, said("4")))
    made = experiment(tmp_path, server.url)
    first = numbers(made)
    assert numbers(made) == first and len(server.asked) == 10
    kept = sorted((tmp_path / "rated/judge").iterdir())
    kept[0].write_text(kept[0].read_text().replace('"4"', '"1"'))
    kept[1].write_bytes(b"\xff")
    assert numbers(made) == first and len(server.asked) == 12
    assert server.keys == [None] * 12, "no key is set, none is sent"


def test_failures_that_pass_are_tried_again_with_growing_pauses(serve: Any, tmp_path: Path, pauses: Any):
    plan = {0: (500, {}, b""), 1: (503, {}, b"busy"), 2: (429, {"Retry-After": "7"}, b""),
            3: (429, {"Retry-After": "99999"}, b""), 5: (429, {"Retry-After": "soon"}, b"")}  # fmt: skip
    server = serve(lambda number: plan.get(number, (200, {}, said("5"))))
    assert numbers(experiment(tmp_path, server.url)) == [(5.0, 5, 0), (5.0, 5, 0)]
    assert pauses == [1, 2, 7, chat.PAUSE, 1] and len(server.asked) == 15


def test_a_server_that_always_fails_is_given_up(serve: Any, tmp_path: Path, pauses: Any):
    server = serve(lambda number: (200, {}, said("2")) if number < 3 else (500, {}, b"down"))
    made = experiment(tmp_path, server.url, retries=1)
    with pytest.raises(UserError, match="no answer for 5 examples in a row .HTTP 500.; what it answered"):
        judge.judge(made)
    assert len(server.asked) == 3 + 5 * 2
    assert not (tmp_path / "rated/judge.json").exists()
    server.reply = lambda number: (200, {}, said("2"))
    assert numbers(made) == [(2.0, 5, 0), (2.0, 5, 0)]
    assert len(server.asked) == 13 + 7, "what it answered before was kept"


def test_an_example_that_fails_is_counted_and_the_others_are_rated(serve: Any, tmp_path: Path, pauses: Any):
    server = serve(lambda number: (500, {}, b"") if number == 2 else (200, {}, said("3")))
    assert numbers(experiment(tmp_path, server.url, retries=0)) == [(3.0, 4, 1), (3.0, 5, 0)]


@pytest.mark.parametrize("reply", [(0, {}, b""), (200, {"X-Drip": "yes"}, said("3" * 10_000))])
def test_a_server_that_stalls_is_waited_for_no_longer_than_set(serve: Any, tmp_path: Path, reply: Reply):
    server = serve(lambda number: reply if number == 0 else (200, {}, said("3")))
    started = time.monotonic()
    made = experiment(tmp_path, server.url, retries=0, timeout_s=0.5, examples=2)
    assert numbers(made) == [(3.0, 1, 1), (3.0, 2, 0)]
    assert time.monotonic() - started < 15, "it was not waited for to its end"


def test_a_refused_connection_is_an_error_that_names_the_server(tmp_path: Path, pauses: Any):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=f"{url}: no answer for 5 examples in a row .connection failed"):
            judge.judge(experiment(tmp_path, url, retries=2))
    assert pauses == [1, 2] * 5


@pytest.mark.parametrize(("status", "words"), [
    (401, "HTTP 401; the key is read from COTDISTILL_JUDGE_KEY"), (404, "HTTP 404$"), (302, "HTTP 302$"),
])  # fmt: skip
def test_what_trying_again_would_not_mend_is_an_error_at_once(
    serve: Any, tmp_path: Path, status: int, words: str
):
    server = serve(lambda number: (status, {"Location": "http://127.0.0.1:9/"}, b""))
    with pytest.raises(UserError, match=words):
        judge.judge(experiment(tmp_path, server.url))
    assert len(server.asked) == 1


NONSENSE = [
    b"", b"<html>log in</html>", b"\xff\xfe", b"[]", b"null", b'{"choices": []}', b'{"choices": {"0": 1}}',
    b'{"choices": [{"message": {"content": 4}}]}', b"[" * 100_000, b'{"choices": [{"message": null}]}',
    said(None), said(""), said("6"), said("0"), said("I would say 4, or 5"), said("4" * 100_000),
    said("٤"), said("\ud800"), said("<script>5</script>"), said("5\n5"), said(["5"]), b" " * (2 << 20),
]  # fmt: skip


def test_nonsense_is_counted_as_unrated(serve: Any, tmp_path: Path, pauses: Any):
    server = serve(lambda number: (200, {}, NONSENSE[number % len(NONSENSE)]))
    made = experiment(tmp_path, server.url, examples=8, retries=0)
    assert numbers(made) == [(None, 0, 8), (None, 0, 8)]
    assert numbers(made) == [(None, 0, 8), (None, 0, 8)], "and again: the rest of the nonsense"
    assert len(server.asked) >= len(NONSENSE)


def test_requests_are_bounded_retries_included(serve: Any, tmp_path: Path, pauses: Any):
    server = serve(lambda number: (500, {}, b"") if number in (1, 2, 5) else (200, {}, said("4")))
    made = experiment(tmp_path, server.url, max_requests=6)
    assert numbers(made) == [(4.0, 3, 2), (None, 0, 5)] and len(server.asked) == 6
    assert numbers(made) == [(4.0, 5, 0), (4.0, 4, 1)], "the next call goes on"
    assert len(server.asked) == 12


def test_without_a_judge_there_is_nothing_to_run(tmp_path: Path):
    made = experiment(tmp_path, "http://localhost")
    off = made.model_copy(update={"evaluation": made.evaluation.model_copy(update={"judge": None})})
    with pytest.raises(UserError, match="^'evaluation.judge': no judge is set"):
        judge.judge(off)
    assert judge.read_ratings(off) == {}


def test_a_key_that_no_header_can_hold_is_refused(serve: Any, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv(chat.KEY, "a\nb")
    server = serve(lambda number: (200, {}, said("4")))
    with pytest.raises(UserError, match="^COTDISTILL_JUDGE_KEY: expected a key of printable ASCII") as error:
        judge.judge(experiment(tmp_path, server.url))
    assert "a\nb" not in str(error.value)


@pytest.mark.parametrize("url", ["ftp://x", "localhost:80", "http://user:key@host/v1", "http://h/?key=1", ""])
def test_an_address_with_a_key_in_it_or_of_another_kind_is_refused(tmp_path: Path, url: str):
    with pytest.raises(UserError, match=r"evaluation\.judge\.url"):
        experiment(tmp_path, url)


@pytest.mark.parametrize(("text", "value"), [
    ("4", 4), (" 5\n", 5), ("3.", 3), ("2/5", 2), ("4 / 5", 4), ("Rating: 1", 1), ("**3**", 3),
    ("Score 2", 2), ("6", None), ("0", None), ("45", None), ("4.5", None), ("-4", None), ("four", None),
    ("4 5", None), ("The rating is 4", None), ("4/10", None), ("", None), ("¼", None),
])  # fmt: skip
def test_ratings_are_read_strictly(text: str, value: int | None):
    assert judge.read_rating(text) == value


@settings(deadline=None)
@given(st.text())
def test_any_answer_can_be_read(text: str):
    assert judge.read_rating(text) in (None, 1, 2, 3, 4, 5)


def test_chosen_examples_do_not_depend_on_the_order_of_rows():
    rows = [{"id": f"e{n}"} for n in range(100)]
    first = judge.choose_rows(rows, "demo", 10)
    assert judge.choose_rows(rows[::-1], "demo", 10) == first and len(first) == 10
    assert judge.choose_rows(rows, "cqa", 10) != first

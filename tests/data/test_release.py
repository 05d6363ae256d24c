"""Fetching the archive from a server on this machine that cuts, refuses and lies."""

from __future__ import annotations

import io
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common.errors import UserError
from cotdistill.data import release
from cotdistill.data.release import fetch, git_blob_id, resolve_root


class Server(ThreadingHTTPServer):
    """Serves `body`; `cuts` lists after how many bytes the next connections break off."""

    body = b""
    ranges = True
    status = 200
    shift = 0

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.asked: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/datasets.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # noqa: N802  (the name that http.server calls)
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        start = int(re.findall(r"\d+", asked)[0]) if asked and server.ranges else 0
        if server.status != 200 or start > len(server.body):
            self.send_error(server.status if server.status != 200 else 416)
            return
        body = server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start + server.shift}-/{len(server.body)}")
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _zip(members: dict[str, str] | list[tuple[zipfile.ZipInfo, str]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, text)
    return buffer.getvalue()


GOOD = _zip({
    "datasets/": "", "datasets/cqa/cqa_train.json": "rows" * 2000, "datasets/cqa/llm/train_CoT_0.json": "[]",
    "datasets/svamp/svamp_train.json": "more", "__MACOSX/datasets/._cqa": "",
    "datasets/.DS_Store": "junk",
})  # fmt: skip


def _id(body: bytes, tmp_path: Path) -> str:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "body").write_bytes(body)
    return git_blob_id(tmp_path / "body")


def _fetch(server: Server, tmp_path: Path, body: bytes = GOOD, blob_id: str = "", attempts: int = 3) -> Path:
    server.body = body
    blob_id = blob_id or _id(body, tmp_path)
    return fetch(tmp_path / "data", server.url, blob_id, attempts=attempts, pause=0.001)


def _check(folder: Path) -> None:
    found = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    wanted = [".release.json", "cqa/cqa_train.json", "cqa/llm/train_CoT_0.json", "svamp/svamp_train.json"]
    assert found == wanted
    assert (folder / "cqa/cqa_train.json").read_text() == "rows" * 2000


def _refused(server: Server, tmp_path: Path, *wanted: str, **settings: Any) -> None:
    with pytest.raises(UserError) as caught:
        _fetch(server, tmp_path, **settings)
    assert "\n" not in str(caught.value)
    for text in wanted:
        assert text in str(caught.value)
    assert not any((tmp_path / "data").glob("*qa*")) and not (tmp_path / "evil").exists()


def test_blob_id_is_gits(tmp_path: Path) -> None:
    assert _id(b"", tmp_path) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_fetch_then_nothing_to_do(server: Server, tmp_path: Path) -> None:
    folder = _fetch(server, tmp_path)
    assert folder == tmp_path / "data"
    _check(folder)
    assert _fetch(server, tmp_path) == folder and len(server.asked) == 1


def test_no_network_where_the_data_is(tmp_path: Path) -> None:
    for name in release.DATASETS:
        file = tmp_path / f"datasets/{name}/{name}_train.json"
        file.parent.mkdir(parents=True)
        file.touch()
    assert fetch(tmp_path, "http://127.0.0.1:9/") == tmp_path / "datasets"


def test_resumes_after_a_cut(server: Server, tmp_path: Path) -> None:
    server.cuts = [40, 25]
    _check(_fetch(server, tmp_path))
    assert server.asked == [None, "bytes=40-", "bytes=65-"]


def test_resumes_in_the_next_call(server: Server, tmp_path: Path) -> None:
    server.cuts = [40]
    part = tmp_path / "data/datasets.zip.part"
    _refused(
        server, tmp_path, "no complete download in 1 attempts", f"run again to continue {part}", attempts=1
    )
    assert part.read_bytes() == GOOD[:40]
    _check(_fetch(server, tmp_path))
    assert server.asked == [None, "bytes=40-"]


def test_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = [40], False
    _check(_fetch(server, tmp_path))


def test_server_that_sends_another_range(server: Server, tmp_path: Path) -> None:
    server.cuts, server.shift = [40], 3
    _check(_fetch(server, tmp_path))
    assert server.asked == [None, "bytes=40-", None]


def test_part_longer_than_the_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/datasets.zip.part").write_bytes(b"x" * (len(GOOD) + 1))
    _check(_fetch(server, tmp_path))


def test_complete_part_needs_no_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/datasets.zip.part").write_bytes(GOOD)
    _check(_fetch(server, tmp_path))
    assert server.asked == []


def test_checksum_mismatch(server: Server, tmp_path: Path) -> None:
    _refused(server, tmp_path, _id(GOOD, tmp_path), "0" * 40, "the bad file was removed", blob_id="0" * 40)
    assert list((tmp_path / "data").iterdir()) == []


def test_refusals_of_the_server(server: Server, tmp_path: Path) -> None:
    server.status = 404
    _refused(server, tmp_path, "the server answered 404")
    assert len(server.asked) == 1
    server.status = 503
    _refused(server, tmp_path, "in 3 attempts (the server answered 503")
    assert len(server.asked) == 4


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no complete download in 2 attempts"):
        fetch(tmp_path, "http://127.0.0.1:9/x.zip", attempts=2, pause=0.001)
    with pytest.raises(UserError, match="expected an http or https address"):
        fetch(tmp_path, "file:///etc/passwd")


@pytest.mark.parametrize(
    "name", ["../evil", "cqa/../../evil", "/evil", "C:/evil", "C:evil", "cqa\\..\\evil", "."]
)
def test_unsafe_names(name: str, server: Server, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = name
    body = _zip([(zipfile.ZipInfo("cqa/a"), "good"), (info, "bad")])
    _refused(server, tmp_path, "unsafe path", body=body)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(kind: int, server: Server, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("cqa/link")
    info.external_attr = (kind | 0o777) << 16
    _refused(server, tmp_path, "'cqa/link': a link or device", body=_zip([(info, "../../evil")]))


def test_sizes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "MAX_UNPACKED", 1000)
    _refused(server, tmp_path, "expected at most 10000 files of 1000 bytes", body=_zip({"cqa/a": "0" * 1001}))
    monkeypatch.setattr(release, "MAX_FILES", 1)
    _refused(server, tmp_path / "2", "2 files of 2 bytes", body=_zip({"cqa/a": "0", "cqa/b": "0"}))
    monkeypatch.setattr(release, "MAX_DOWNLOAD", 100)
    _refused(server, tmp_path / "3", "more than 100 bytes")
    assert not (tmp_path / "3/data/datasets.zip.part").exists()


def test_no_zip(server: Server, tmp_path: Path) -> None:
    _refused(server, tmp_path, "not a readable zip archive", body=b"<html>no</html>")
    broken = bytearray(GOOD)
    broken[70:75] = b"\xff" * 5
    _refused(server, tmp_path / "2", "not a readable zip archive", body=bytes(broken))
    _refused(server, tmp_path / "3", "an archive without files", body=_zip({"datasets/": ""}))


def test_nothing_of_the_users_is_replaced(server: Server, tmp_path: Path) -> None:
    own = tmp_path / "data/svamp/svamp_train.json"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    folder = _fetch(server, tmp_path)
    assert own.read_text() == "mine" and (folder / "cqa/cqa_train.json").exists()


def test_where_the_data_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COTDISTILL_DATA", raising=False)
    assert resolve_root() == Path("data") and resolve_root(tmp_path) == tmp_path
    monkeypatch.setenv("COTDISTILL_DATA", str(tmp_path))
    (tmp_path / "datasets/cqa").mkdir(parents=True)
    assert resolve_root() == resolve_root(str(tmp_path)) == tmp_path / "datasets"
    (tmp_path / "svamp").mkdir()
    assert resolve_root() == tmp_path

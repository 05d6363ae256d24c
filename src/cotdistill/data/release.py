"""The published archive of datasets: find it on disk, or download, check and unpack it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import atomic, read_json, remove_leftovers, write_json

COMMIT = "ef944263c9ddfd40a9888557f3e7d17513fd1a7e"
URL = f"https://raw.githubusercontent.com/google-research/distilling-step-by-step/{COMMIT}/datasets.zip"
BLOB_ID = "fb9d88a0b44c2daac1ec1639f0bdae993e7e5bcd"
"""git's name for the archive: SHA-1 over `blob <size>\\0` and the bytes"""

ENVIRONMENT = "COTDISTILL_DATA"
DEFAULT_ROOT = Path("data")
DATASETS = ("cqa", "svamp", "esnli", "anli1")
MARKER = ".release.json"

Members = list[tuple[zipfile.ZipInfo, PurePosixPath]]
"""files of an archive, each with the path that it gets"""

TIMEOUT = 60.0
"""seconds without a byte after which a connection is given up"""
MAX_DOWNLOAD = 2 * 1024**3
MAX_UNPACKED = 8 * 1024**3
MAX_FILES = 10_000
"""far above the real archive, far below what fills a disk"""


def resolve_root(root: Path | str | None = None) -> Path:
    """Return the folder that holds `cqa/`, `svamp/`, ...: `root` itself, or its `datasets/` if that does.

    None means the environment variable COTDISTILL_DATA, else `data/`. The folder need not exist.
    """
    base = Path(root if root is not None else os.environ.get(ENVIRONMENT) or DEFAULT_ROOT)
    inner = base / "datasets"
    if any((base / name).is_dir() for name in (*DATASETS, "asdiv")) or not inner.is_dir():
        return base
    return inner


def fetch(
    root: Path | str | None = None,
    url: str = URL,
    blob_id: str = BLOB_ID,
    *,
    attempts: int = 5,
    pause: float = 1.0,
) -> Path:
    """Download, check and unpack the archive below `root`; return the folder that holds the datasets.

    Does nothing, and touches no network, where the datasets are there already. A dataset folder that exists
    is never replaced. A cut download is continued, in this call (`attempts`, with waits of `pause` seconds,
    doubled each time) or in the next one: it is kept as `datasets.zip.part`. Raises UserError if the server
    refuses, the connection stays broken, the git blob id differs (the file is removed), or the archive holds
    unsafe names, links or absurd sizes.
    """
    folder = resolve_root(root)
    remove_leftovers(folder)
    if _is_present(folder, blob_id):
        return folder
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: expected an http or https address")
    part = folder / "datasets.zip.part"
    with _name_write_errors(part):
        folder.mkdir(parents=True, exist_ok=True)
    # a part that is complete already (stopped while unpacking) needs no network
    if not part.is_file() or git_blob_id(part) != blob_id:
        _download(url, part, attempts, pause)
        found = git_blob_id(part)
        if found != blob_id:
            part.unlink()
            raise UserError(
                f"{url}: git blob id {found}, expected {blob_id}; the bad file was removed, run again"
            )
    entries = _unpack(part, folder)
    write_json(folder / MARKER, {"blob_id": blob_id, "url": url, "entries": entries})
    part.unlink()
    return folder


def _is_present(folder: Path, blob_id: str) -> bool:
    if all((folder / name / f"{name}_train.json").is_file() for name in DATASETS):
        return True
    with contextlib.suppress(UserError, AttributeError, TypeError):
        marker = read_json(folder / MARKER)
        entries = marker.get("entries")
        return marker.get("blob_id") == blob_id and all((folder / entry).exists() for entry in entries)
    return False


def git_blob_id(path: Path) -> str:
    """Return git's object id of a file's content, 40 hex digits."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _name_write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error


def _download(url: str, part: Path, attempts: int, pause: float) -> None:
    problem = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            if _transfer(url, part):
                return
            problem = "the connection was cut"
        except urllib.error.HTTPError as error:
            problem = f"the server answered {error.code} {error.reason}"
            if error.code == 416:  # the part is longer than the file: it belongs to something else
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise UserError(f"{url}: {problem}") from error
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
    kept = f"; run again to continue {part}" if part.exists() else ""
    raise UserError(f"{url}: no complete download in {attempts} attempts ({problem}){kept}")


def _transfer(url: str, part: Path) -> bool:
    """Download in one connection, from where `part` ends; return whether the file is complete."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "cotdistill", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        # a server may ignore the range (200) and send all from the start
        start = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
        if response.status != 206 or start is None or int(start[1]) != have:
            if response.status == 206:
                part.unlink(missing_ok=True)
                return False
            have = 0
        length = response.headers.get("Content-Length", "")
        expected = have + int(length) if length.isascii() and length.isdigit() else None
        with _open_part(part, "ab" if have else "wb") as handle:
            while chunk := response.read(1 << 18):
                have += len(chunk)
                if have > MAX_DOWNLOAD:
                    break
                with _name_write_errors(part):
                    handle.write(chunk)
    if have > MAX_DOWNLOAD:
        part.unlink()
        raise UserError(f"{url}: more than {MAX_DOWNLOAD} bytes; expected the archive of the release")
    return expected is None or have == expected


@contextlib.contextmanager
def _open_part(part: Path, mode: str) -> Iterator[IO[Any]]:
    with _name_write_errors(part):
        handle = open(part, mode)  # noqa: SIM115  (closed below, where a full disk shows too)
    try:
        yield handle
    finally:
        with _name_write_errors(part):
            handle.close()


def _unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack what `folder` does not hold yet, one whole entry at a time; return the entries' names."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _list_entries(opened, archive)
            for name, members in entries.items():
                if (folder / name).exists():
                    continue
                with atomic(folder / name) as target:
                    for info, inner in members:
                        file = target.joinpath(*inner.parts)
                        file.parent.mkdir(parents=True, exist_ok=True)
                        with opened.open(info) as reader, open(file, "xb") as writer:
                            shutil.copyfileobj(reader, writer)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: not a readable zip archive ({error})") from error
    return sorted(entries)


def _list_entries(opened: zipfile.ZipFile, archive: Path) -> dict[str, Members]:
    """Return the archive's files by top-level name, without a leading `datasets/`, all checked.

    Raises UserError for sizes, names or kinds of files that the release does not have.
    """
    infos = opened.infolist()
    # zipfile unpacks no more of a member than its declared size, so the sum bounds what is written
    size = sum(info.file_size for info in infos)
    if len(infos) > MAX_FILES or size > MAX_UNPACKED:
        raise UserError(
            f"{archive}: {len(infos)} files of {size} bytes; expected at most {MAX_FILES} files of "
            f"{MAX_UNPACKED} bytes"
        )
    files = []
    for info in infos:
        path = _check_member(info, archive)
        # folders that macOS adds to archives
        if not info.is_dir() and path.parts[0] != "__MACOSX" and path.name != ".DS_Store":
            files.append((info, path))
    inside = bool(files) and all(path.parts[0] == "datasets" and len(path.parts) > 1 for _, path in files)
    entries: dict[str, Members] = {}
    for info, path in files:
        parts = path.parts[1:] if inside else path.parts
        entries.setdefault(parts[0], []).append((info, PurePosixPath(*parts[1:])))
    if not entries:
        raise UserError(f"{archive}: an archive without files; expected the folders {', '.join(DATASETS)}")
    return entries


def _check_member(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Return the member's path. Raises UserError if it leaves the folder or is no plain file or folder."""
    name = info.orig_filename
    path = PurePosixPath(name)
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or "\0" in name
        or re.match(r"[A-Za-z]:", name)
    ):
        raise UserError(f"{archive}: member {name!r:.80}: unsafe path; expected one inside the folder")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(f"{archive}: member {name!r:.80}: a link or device; expected plain files and folders")
    return path

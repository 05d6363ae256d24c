"""Read and write files so that none is ever half written, and so that every fault names its file and line."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.text import parse_lines, read_text

LOCK = ".lock"
"""file in a temporary folder that its process holds a lock of while it lives"""


@contextlib.contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success sync and rename it, on failure remove it.

    The caller may make a file or a folder there. A folder that exists at `target` is replaced. What an
    earlier process left of the same target, when it was killed, is removed. Raises UserError when the disk
    is full or the folder cannot be written.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, target.name)
        holder, lock = _make_holder(target)
        opened = os.open(holder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    part = holder / target.name
    try:
        yield part
        _open_to_umask(part, opened)
        _sync(part)
        # where this process slept long, `sweep` may have removed its folder, and another process may have
        # made one of the same name: names are looked up in the open folder itself, which is then empty
        if target.is_dir() and not target.is_symlink():
            # a folder cannot be renamed over a folder with content: move the old one aside first
            os.rename(target, "old", dst_dir_fd=opened)
        os.rename(target.name, target, src_dir_fd=opened)
        _sync_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    except Exception as error:
        if _is_os_error_of_rust(error):
            raise UserError(f"cannot write {target}: {error}") from error
        raise
    finally:
        os.close(opened)
        _empty(holder)
        os.close(lock)  # a network file system keeps a file that is open, and so its folder
        shutil.rmtree(holder, ignore_errors=True)


def _make_holder(target: Path) -> tuple[Path, int]:
    """Make the folder that `atomic` writes in; return it with a lock that tells that this process lives."""
    while True:
        holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        with contextlib.suppress(FileNotFoundError):  # another process took it for one that was left
            lock = os.open(holder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            if _hold(lock, holder / LOCK) is not False:
                return holder, lock
            os.close(lock)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove the temporary folders of `atomic` in `folder` whose process was killed.

    name: of the one target whose temporary folders are meant. Any process may call this at any time: who
    writes holds a lock, which the system frees with its process, on a network file system too. Where files
    cannot be locked nothing is removed.
    """
    for holder in _list_holders(folder, name):
        with contextlib.suppress(OSError):  # gone at this moment, in use, or not ours
            if (holder / LOCK).exists():
                _remove_abandoned(holder)
            os.rmdir(holder)  # one whose process was killed before it made the lock


def _remove_abandoned(holder: Path) -> None:
    lock = os.open(holder / LOCK, os.O_RDWR)
    try:
        if _hold(lock, holder / LOCK):
            _empty(holder)
            shutil.rmtree(holder, ignore_errors=True)
    finally:
        os.close(lock)


def _empty(holder: Path) -> None:
    """Remove what is in a temporary folder but its lock: without one it would not be known as left behind."""
    with contextlib.suppress(OSError), os.scandir(holder) as found:
        for one in found:
            if one.is_dir(follow_symlinks=False):
                shutil.rmtree(one.path, ignore_errors=True)
            elif one.name != LOCK:
                os.unlink(one.path)


def _hold(lock: int, path: Path) -> bool | None:
    """Lock an open file; return whether it is held and still at `path`, None where it cannot be locked."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return path.exists() and os.path.samestat(os.fstat(lock), path.stat())


def _list_holders(folder: Path, name: str = "") -> list[Path]:
    """Return the temporary folders in `folder`, of one target where it is named."""
    named = re.escape(name) if name else ".+"
    pattern = re.compile(rf"\.{named}\.[a-z0-9_]{{8}}", re.DOTALL)  # as mkdtemp names them
    try:
        with os.scandir(folder) as found:
            return [
                Path(one)
                for one in found
                if pattern.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


def _is_os_error_of_rust(error: Exception) -> bool:
    """Whether an error is one of the operating system, such as a full disk, that Rust code met.

    safetensors and tokenizers raise classes of their own in place of an OSError, with Rust's text, such as
    "No space left on device (os error 28)", by which alone they can be told.
    """
    return not isinstance(error, UserError) and re.search(r"\(os error \d+\)", str(error)) is not None


def _open_to_umask(path: Path, holder: int) -> None:
    """Give `path`, and all below it, the access that a plain new file or folder has here.

    safetensors, and whoever else writes through a temporary file, makes files for their owner alone. holder:
    an open folder, in which a new file and folder show that access: it follows umask and the folder's rules.
    """
    os.close(os.open(".access", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o666, dir_fd=holder))
    for_files = os.stat(".access", dir_fd=holder).st_mode & 0o777
    os.unlink(".access", dir_fd=holder)
    os.mkdir(".access", dir_fd=holder)
    for_folders = os.stat(".access", dir_fd=holder).st_mode & 0o777
    os.rmdir(".access", dir_fd=holder)
    for found in [path, *path.rglob("*")]:
        mode = found.lstat().st_mode
        wanted = for_folders if stat.S_ISDIR(mode) else for_files
        if mode & 0o777 != wanted and not stat.S_ISLNK(mode):
            # a hard link to another user's file, or a disk without modes: the content is what counts
            with contextlib.suppress(PermissionError):
                found.chmod(mode & 0o7000 | wanted)


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())


def _sync_folder(path: Path) -> None:
    # a rename is lost with the power until its folder is synced; some file systems cannot, and need not
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Remove all temporary folders of `atomic` in `folder`, also where its file system has no locks.

    Only the one process that may write to the folder may call this.
    """
    for path in _list_holders(folder):
        shutil.rmtree(path, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Put a file or folder at `target` too, atomically, by hard links where these can be made."""
    with atomic(target) as part:
        if source.is_dir():
            shutil.copytree(source, part, copy_function=_link)
        else:
            _link(source, part)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(target: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(target) as part:
        part.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are written as null."""
    write_text(target, json.dumps(replace_non_finite(value), indent=2, ensure_ascii=False) + "\n")


def write_jsonl(target: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    with atomic(target) as part, open(part, "w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(replace_non_finite(row), ensure_ascii=False) + "\n")


def replace_non_finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity in it replaced by None, because JSON cannot spell them.

    Dicts, lists and tuples are searched at any depth; tuples become lists.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_non_finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises UserError naming the file, and line and column of a fault."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            cause = "more than one JSON value; expected one"
        else:
            # a fault before the last line is no sign of a file that was cut off
            last = error.lineno > text.rstrip().count("\n")
            cause = f"not valid JSON ({error.msg}, column {error.colno})"
            cause += "; the file may be truncated" if last and text.strip() else ""
            cause += "" if text.strip() else "; the file is empty"
        raise UserError(f"{path}:{error.lineno}: {cause}") from error
    except (RecursionError, ValueError) as error:  # nested too deep, or an integer of thousands of digits
        raise UserError(f"{path}: not JSON that can be read ({error})") from error


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` with one more key, `seal`: a digest of the rest, which `read_sealed` checks."""
    return {**value, "seal": digest(replace_non_finite(value))}


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object and check its seal, which is left out of what is returned.

    The file was written by `write_json` from what `seal` returned; one without a seal is not checked.
    remedy: what the user can do when the file is corrupt. Raises UserError that ends with it.
    """
    try:
        value = read_json(path)
    except UserError as error:
        raise (UserError(f"{error}; {remedy}") if path.exists() else error) from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}; {remedy}")
    expected = value.pop("seal", None)
    if expected is not None and expected != digest(value):
        raise UserError(f"{path}: corrupt: its numbers are not those that were written; {remedy}")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Parse JSON lines, one object a line. Raises UserError naming the file and the line."""
    return [row for _, row in parse_lines(path, read_text(path))]


def digest(value: Any) -> str:
    """Return the SHA-256 (16 hex digits) of `value` as canonical JSON: equal values have equal digests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_hash(path: Path, expected: str | None, fault: str, remedy: str) -> None:
    """Raise UserError where the SHA-256 of a file's bytes is not `expected`, or the file cannot be read.

    fault: what is said of a file with other bytes. remedy: what the user can do; the message ends with it.
    """
    try:
        found = hash_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    if found != expected:
        raise UserError(f"{path}: {fault}; {remedy}")


def hash_tree(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path relative to the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hash_file(path) for path in files}

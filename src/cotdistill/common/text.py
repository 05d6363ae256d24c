"""Read text and JSON lines that users wrote, and say what a file is that is something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError

ONE_A_LINE = "expected one JSON object a line"

_UTF16 = ("UTF-16 text", "save it as UTF-8, as with iconv -f UTF-16 -t UTF-8")
_FORMATS = {  # the bytes that a file of another format begins with: what it is, and what to do
    b"\xff\xfe\0\0": ("UTF-32 text", "save it as UTF-8, as with iconv -f UTF-32 -t UTF-8"),
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"\x1f\x8b": ("compressed with gzip", "unpack it first, as with gunzip"),
    b"BZh": ("compressed with bzip2", "unpack it first, as with bunzip2"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it first, as with unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it first, as with unzstd"),
    b"PK\x03\x04": ("a zip archive or an office document", "unpack it, or export it as text"),
    b"PAR1": ("a Parquet file", "convert it to text first"),
    b"ARROW1": ("an Arrow file", "convert it to text first"),
    b"version https://git-lfs": ("the pointer that Git LFS keeps in place of the file", "git lfs pull"),
    b"SQLite format 3": ("a SQLite database", "export it as text first"),
}


def parse_whole_number(text: str) -> int | None:
    """Return the number that a text is in ASCII digits, at most 19 of them; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte-order mark; every line end becomes a line feed.

    Raises UserError that says what the file is where it is no such text.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    for start, (what, remedy) in _FORMATS.items():
        if content.startswith(start):
            raise UserError(f"{path}: {what}; expected UTF-8 text: {remedy}")
    if b"\0" in content:
        raise UserError(f"{path}{_describe_null_bytes(content)}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _describe_null_bytes(content: bytes) -> str:
    start = content[:200]
    counts = sorted(half.count(0) / max(len(half), 1) for half in (start[::2], start[1::2]))
    # of Latin letters, one byte of two is 0
    if counts[0] < 0.1 and counts[1] > 0.7:
        what, remedy = _UTF16
        return f": {what}; expected UTF-8 text: {remedy}"
    line = content.count(b"\n", 0, content.index(0)) + 1
    return f":{line}: a NUL byte; expected UTF-8 text: the file is damaged, as by a crash, or is no text"


def parse_lines(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    """Parse JSON lines; return each line's number, from 1, and its object. Blank lines are passed over.

    Raises UserError that names the file and the line, and says what the file is where it is no JSON lines, or
    where one object has a key twice.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    # split on "\n" alone: str.splitlines also splits on U+2028, which JSON strings may hold
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        # files that were joined may have a byte-order mark at any line
        line = line.removeprefix("\ufeff")
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_refuse_repeated_keys)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: {_explain(lines, number, error)}") from error
        except _RepeatedKey as error:
            raise UserError(
                f"{path}:{number}: key '{error!s:.60}' stands twice in one object; expected each key once"
            ) from error
        except (RecursionError, ValueError) as error:  # nested too deep, or an integer of thousands of digits
            raise UserError(f"{path}:{number}: not JSON that can be read ({error})") from error
        if not isinstance(row, dict):
            rest = any(other.strip() for other in lines[number:])
            if isinstance(row, list) and not rows and not rest:
                raise UserError(f"{path}:{number}: {_describe_array(row)}")
            raise UserError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
        rows.append((number, row))
    return rows


class _RepeatedKey(ValueError):
    pass


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKey(key)
            seen.add(key)
    return made


def _explain(lines: list[str], number: int, error: json.JSONDecodeError) -> str:
    """Return what is wrong with line `number`, which does not parse: with it, or with the file as a whole."""
    line = lines[number - 1].removeprefix("\ufeff")
    rest = "\n".join([line, *lines[number:]])
    before = any(other.strip() for other in lines[: number - 1])
    try:
        value, end = json.JSONDecoder().raw_decode(rest.lstrip())
    except (ValueError, RecursionError):
        value, end = None, 0
    if isinstance(value, list) and not before:
        return _describe_array(value)
    if isinstance(value, dict) and "\n" in rest.lstrip()[:end]:
        last = number + rest.lstrip()[:end].count("\n")
        return (
            f"one JSON object on lines {number} to {last}; {ONE_A_LINE} "
            "(convert the file: jq -c . old.json > new.jsonl)"
        )
    if error.msg == "Extra data" and line.lstrip()[:1] == "{":
        return f"more than one JSON value (column {error.colno}); {ONE_A_LINE}"
    if not before and line.lstrip()[:1] not in ("{", "["):
        return _describe_other(line, lines[number:])
    cut = not any(other.strip() for other in lines[number:])
    fault = f"not valid JSON ({error.msg}, column {error.colno})"
    return f"{fault}; the file may be truncated" if cut else f"{fault}; {ONE_A_LINE}"


def _describe_array(value: list[Any]) -> str:
    return (
        f"this file is one JSON array of {len(value)} values; {ONE_A_LINE} "
        "(convert it: jq -c '.[]' old.json > new.jsonl)"
    )


def _describe_other(line: str, following: list[str]) -> str:
    second = next((other for other in following if other.strip()), "")
    for sign, name in (("\t", "tab-separated text (TSV)"), (",", "comma-separated text (CSV)")):
        if sign in line and sign in second:
            return f"{name}, beginning with {line!r:.60}; {ONE_A_LINE}: convert the table to JSON lines"
    return f"no JSON, beginning with {line!r:.60}; {ONE_A_LINE}"

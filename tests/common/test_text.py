"""Text that users wrote: what is read, and what is said of files that are something else."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_json, read_jsonl

ROWS = [{"input": "q", "label": "ja \u2028 \u00e9"}, {"input": "r", "label": "nein"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def refuse(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_jsonl(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 500
    return message.removeprefix(str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_marks_and_line_ends_are_read(mark: str, end: str, path: Path) -> None:
    path.write_bytes((mark + LINES.replace("\n", end)).encode())
    assert read_jsonl(path) == ROWS
    path.write_bytes((mark + json.dumps(ROWS, indent=1).replace("\n", end)).encode())
    assert read_json(path) == ROWS


def test_joined_files_with_marks_are_read(path: Path) -> None:
    path.write_bytes(f"\ufeff{LINES}\ufeff{LINES}".encode())
    assert read_jsonl(path) == ROWS * 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_wider_text_is_named(encoding: str, path: Path) -> None:
    path.write_bytes(LINES.replace("\u2028", "").encode(encoding))
    assert refuse(path).startswith(": UTF-16 text; expected UTF-8 text: save it as UTF-8")
    with pytest.raises(UserError, match="UTF-16"):
        read_json(path)
    path.write_bytes(LINES.encode("utf-32"))
    assert refuse(path).startswith(": UTF-32 text; ")


def test_another_encoding_names_the_line(path: Path) -> None:
    path.write_bytes(b'{"a": "b"}\n{"a": "\xe9"}\n')
    assert refuse(path) == ":2: not UTF-8 text (byte 18); save it as UTF-8"


@pytest.mark.parametrize("line", [1, 2, 3])
def test_null_bytes_name_the_line(line: int, path: Path) -> None:
    lines = ['{"a": 1}', '{"a": 2}', '{"a": 3}']
    lines[line - 1] = "\0" * 4096
    path.write_text("\n".join(lines))
    assert refuse(path).startswith(f":{line}: a NUL byte")


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.jsonl", content)
    return buffer.getvalue()


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [(gzip.compress(LINES.encode(), mtime=0), "gzip"), (bz2.compress(LINES.encode()), "bzip2"),
     (lzma.compress(LINES.encode()), "xz"), (_zip(LINES.encode()), "zip archive"), (_parquet(), "Parquet"),
     (b"ARROW1\0\0", "Arrow"), (b"SQLite format 3\0", "SQLite"), (b"(\xb5/\xfd", "zstd"),
     (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS")],
)  # fmt: skip
def test_other_formats_are_named(content: bytes, wanted: str, path: Path) -> None:
    path.write_bytes(content)
    message = refuse(path)
    assert wanted in message and "expected UTF-8 text" in message and "truncated" not in message


@pytest.mark.parametrize("indent", [None, 2, 0, "\t"])
def test_an_array_is_named(indent: int | str | None, path: Path) -> None:
    path.write_text("\n" + json.dumps(ROWS, indent=indent))
    message = refuse(path)
    assert message.startswith(":2: this file is one JSON array of 2 values; expected one JSON object a line")
    assert "jq -c '.[]'" in message


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [{"a": {"b": [1, {}]}}]])
def test_objects_over_several_lines_are_named(rows: list[dict[str, object]], path: Path) -> None:
    path.write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    message = refuse(path)
    last = json.dumps(rows[0], indent=2).count("\n") + 1
    assert message.startswith(f":1: one JSON object on lines 1 to {last}; expected one JSON object a line")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("input,label\nq,yes\n", ":1: comma-separated text (CSV), beginning with 'input,label'"),
     ("input\tlabel\nq, r\tyes\n", ":1: tab-separated text (TSV)"),
     ('"input","label"\n"q","yes"\n', ":1: comma-separated text (CSV)"),
     ("<html>\n<body>\n", ":1: no JSON, beginning with '<html>'"),
     ("- input: q\n", ":1: no JSON, beginning with '- input: q'"),
     ("{'input': 'q'}\n{'input': 'q'}\n", ":1: not valid JSON"),
     ('{"a": 1} {"a": 2}\n', ":1: more than one JSON value (column 10)"),
     ('{"a": 1},\n{"a": 2},\n', ":1: more than one JSON value (column 9)"),
     ('{"a": 1}\n[1]\n', ":2: expected a JSON object, found list"),
     ("[1]\n[2]\n", ":1: expected a JSON object, found list"),
     ('"a"\n', ":1: expected a JSON object, found str")],
)  # fmt: skip
def test_what_is_no_json_lines_is_named(text: str, wanted: str, path: Path) -> None:
    path.write_text(text)
    message = refuse(path)
    assert message.startswith(wanted) and "truncated" not in message


def test_only_a_fault_at_the_end_may_be_truncation(path: Path) -> None:
    path.write_text(LINES + LINES[:12])
    assert "; the file may be truncated" in refuse(path)
    path.write_text(LINES[:12] + "\n" + LINES)
    assert "truncated" not in refuse(path)
    path.write_text(json.dumps(ROWS)[:-3])
    with pytest.raises(UserError, match="truncated"):
        read_json(path)
    path.write_text('[\n{"a" 1},\n{"a": 2}\n]\n')
    with pytest.raises(UserError, match=r"jsonl:2: not valid JSON \(Expecting ':' delimiter, column 6\)$"):
        read_json(path)


def test_an_empty_file_is_named(path: Path) -> None:
    path.write_text("")
    assert read_jsonl(path) == []
    with pytest.raises(UserError, match="the file is empty$"):
        read_json(path)
    path.write_text("[]\n[]\n")
    with pytest.raises(UserError, match="jsonl:2: more than one JSON value; expected one$"):
        read_json(path)


@pytest.mark.parametrize(
    ("text", "key"),
    [('{"label": "a", "label": "b"}', "label"), ('{"x": {"y": 1, "y": 1}}', "y"), ('{"": 1, "": 2}', ""),
     ('{"a": 1, "b": 2, "c": 3, "b": 2}', "b")],
)  # fmt: skip
def test_a_key_that_stands_twice(text: str, key: str, path: Path) -> None:
    path.write_text(f'{{"a": 1}}\n\n{text}\n')
    assert refuse(path) == f":3: key '{key}' stands twice in one object; expected each key once"


@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode),
                         st.text('{}[]",: \\n\\r\t1a\ufeff', max_size=30).map(str.encode)))  # fmt: skip
def test_anything_is_read_or_refused_in_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.jsonl"
    path.write_bytes(content)
    for read in (read_jsonl, read_json):
        try:
            read(path)
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)

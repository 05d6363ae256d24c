"""Finished batches of a long generation, kept on disk, so that one that was stopped can continue."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError

Rows = list[Any]
"""what was found for each example of a batch, as JSON holds it: lists, not tuples"""


class Journal:
    """A file of finished batches: one line each, with a checksum; the first line is the key.

    Batches whose lines are incomplete or corrupt are generated again, and so are all under another key.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Read the batches that are kept under `key`. Raises UserError when the file cannot be written."""
        self.path = path
        lines = self._read_lines()
        self.batches: dict[int, Rows] = {}
        if lines[:1] == [_format_line(key)]:
            self.batches = dict(batch for line in lines[1:] if (batch := _parse_line(line)))
        kept = [_format_line([start, rows]) for start, rows in self.batches.items()]
        self._write("w", [_format_line(key), *kept])

    def get(self, start: int) -> Rows | None:
        """Return the results of the batch that begins at example `start` of the order; None if not kept."""
        return self.batches.get(start)

    def put(self, start: int, rows: Rows) -> None:
        """Append the results of the batch that begins at `start`. Raises UserError when the disk is full."""
        self._write("a", [_format_line([start, rows])])

    def close(self) -> None:
        """Remove the file: all batches are kept elsewhere now."""
        self.path.unlink(missing_ok=True)

    def _read_lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return []

    def _write(self, mode: str, lines: list[str]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, encoding="utf-8") as handle:
                handle.write("".join(f"{line}\n" for line in lines))
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error


def _format_line(value: Any) -> str:
    text = json.dumps(value)  # a float as JSON reads back to the same bits
    return f"{zlib.crc32(text.encode()):08x} {text}"


def _parse_line(line: str) -> tuple[int, Rows] | None:
    crc, _, text = line.partition(" ")
    if crc != f"{zlib.crc32(text.encode()):08x}":
        return None
    start, rows = json.loads(text)
    return start, rows

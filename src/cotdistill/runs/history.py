"""The history of a run: one JSON line for each logged step, written during training, exact after a resume."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import replace_non_finite


class History:
    """A file to which training appends lines. `rewind` drops those of steps that will be taken again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_before(self, step: int) -> str:
        """Return the lines of the steps before `step` as one text; half-written lines are left out."""
        kept = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    if json.loads(line)["step"] < step:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue
        return "".join(kept)

    def digest(self, step: int) -> str:
        """Return the SHA-256 of the lines of the steps before `step`, which are on disk when this returns."""
        if self.path.is_file():
            with open(self.path, "rb") as handle:
                os.fsync(handle.fileno())
        return hashlib.sha256(self.read_before(step).encode()).hexdigest()

    def rewind(self, step: int) -> None:
        """Drop the lines of `step` and later. Raises UserError when the file cannot be written."""
        text = self.read_before(step)
        part = self.path.with_suffix(".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.path)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. Raises UserError when the disk is full or the folder cannot be written."""
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(replace_non_finite(line)) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error

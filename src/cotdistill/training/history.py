"""The history of a run: one JSON line a logged step, written as training goes, exact after a resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cotdistill.errors import UserError
from cotdistill.files import finite


class History:
    """Appends lines to a file. `rewind` drops what a lost part of training wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Keep the lines up to `step`; a torn last line goes too."""
        kept = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").split("\n"):
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text("".join(kept), encoding="utf-8")
        os.replace(part, self.path)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. Raises UserError when the disk is full or the folder cannot be written."""
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(finite(line)) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error

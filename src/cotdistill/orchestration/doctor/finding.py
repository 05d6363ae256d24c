"""Define what a check finds: one line of printable text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "FAIL", "skip"]

WIDTH = 7
"""of the column of names"""
LONGEST = 400
"""characters of a command's own words in a line"""


@dataclass(frozen=True)
class Finding:
    """How one thing stands, and what to do about it where it does not stand well."""

    level: Level
    name: str
    text: str
    advice: str = ""

    def line(self) -> str:
        """Return the finding as one aligned line."""
        text = f"{self.text} -> {self.advice}" if self.advice else self.text
        return f"{self.level:<4}  {self.name:<{WIDTH}}  {make_printable(text, 10 * LONGEST)}"


def make_printable(text: object, longest: int = LONGEST) -> str:
    """Return foreign text as one line: white space becomes a blank, what a terminal might act on a `?`."""
    words = " ".join(str(text).split())
    clean = "".join(letter if letter.isprintable() else "?" for letter in words)
    return clean if len(clean) <= longest else f"{clean[: longest - 4]} ..."

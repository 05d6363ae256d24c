"""Read the folders that a config names: `~` and `$VARIABLE` are expanded, and what is no folder is refused.

A dump writes a folder so that reading it again gives the same folder: a frozen grid is never expanded twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer

LONGEST_PART = 255
"""bytes of one folder's name, the most that file systems allow"""
LONGEST = 3000
"""bytes of a folder's path: below 4096, which Linux allows, with room for the files in it"""

_VARIABLE = re.compile(r"\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")


def expand_variables(text: str, read: Callable[[str], str] | None = None) -> str:
    """Replace `$NAME` and `${NAME}` by environment variables, and `$$` by one dollar sign.

    read: gives the value of a name; left out, `read_variable`. Another dollar sign stays as it is.
    """
    reader = read or read_variable

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return "$" if match[0] == "$$" else reader(name or "")

    return _VARIABLE.sub(replace, text)


def read_variable(name: str) -> str:
    """Return the value of an environment variable. Raises ValueError where it has none."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"${{{name[:40]}}} is not the name of a variable; write $$ for a dollar sign")
    value = os.environ.get(name)
    if value is None or not value.strip():
        state = "is not set" if value is None else "is empty"
        raise ValueError(f"the environment variable {name} {state}; write $$ for a dollar sign")
    return value


def expand_folder(text: str) -> str:
    """Return a folder with `~`, `~user` and environment variables expanded. Raises ValueError."""
    home, rest = re.match(r"(~[^/]*)?(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if home:
        found = os.path.expanduser(home)
        if found == home:
            raise ValueError(f"'{home[:40]}' is nobody's home; write ./{home[:40]} for a folder of this name")
        return found + expand_variables(rest)
    return expand_variables(text)


def escape_folder(text: str) -> str:
    """Return what `expand_folder` turns into `text`."""
    return ("./" if text.startswith("~") else "") + text.replace("$", "$$")


def check_folder(text: str) -> str:
    """Return the text of a folder. Raises ValueError where it is the name of none."""
    if not text.strip():
        raise ValueError("a folder is expected, and this is empty")
    check_characters(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ValueError("a folder is expected, and this is an address")
    if text.startswith("-"):
        raise ValueError("a folder must not begin with '-', which commands read as an option")
    if any(len(part.encode()) > LONGEST_PART for part in text.split("/")):
        raise ValueError(f"the name of a folder has {LONGEST_PART} bytes at most")
    if len(os.path.abspath(text).encode()) > LONGEST:
        raise ValueError(f"the path of a folder has {LONGEST} bytes at most")
    return text


def check_characters(text: str) -> None:
    """Raise ValueError where a text holds line ends, other control characters or half a surrogate pair."""
    for place, letter in enumerate(text):
        if not letter.isprintable() and letter != " " and _is_forbidden(letter):
            raise ValueError(f"character {place + 1} is U+{ord(letter):04X}, which a path must not hold")


def _is_forbidden(letter: str) -> bool:
    code = ord(letter)
    # control characters, the two line separators, and halves of surrogate pairs
    return code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029) or 0xD800 <= code <= 0xDFFF


def _read(text: str) -> str:
    # first, so that a fault is in the text and not in the value of a variable
    check_characters(text)
    return check_folder(expand_folder(text))


FolderPath = Annotated[str, AfterValidator(_read), PlainSerializer(escape_folder, return_type=str)]
"""a folder; the value is expanded, a dump of it is what expands to it"""

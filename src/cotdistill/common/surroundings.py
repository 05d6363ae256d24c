"""Make a process independent of what a notebook, a service or a container left in its environment."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

from cotdistill.common.errors import UserError, show_value

NUMBERS = {
    "HF_HUB_DOWNLOAD_TIMEOUT": int,
    "HF_HUB_ETAG_TIMEOUT": int,
    "HF_DATASETS_IN_MEMORY_MAX_SIZE": float,
}
"""variables that huggingface_hub and datasets read as numbers when they are imported"""


def settle() -> None:
    """Have every text printable, every standard stream open and figures drawn without a display.

    Children inherit what concerns them: UTF-8 for file names and texts, whatever the locale says.
    """
    os.environ["MPLBACKEND"] = "agg"  # a notebook names its own, which is an error where it is not installed
    os.environ["PYTHONUTF8"] = "1"
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a character that the terminal or log cannot hold must not end the work whose result it tells
            with contextlib.suppress(OSError):  # a file that a warm process has read from, which cannot seek
                stream.reconfigure(errors="backslashreplace")


def check_numbers() -> None:
    """Raise UserError for a variable of NUMBERS that is none, which would end a library's import."""
    for name, kind in NUMBERS.items():
        value = os.environ.get(name, "")
        try:
            kind(value or "0")
        except ValueError as error:
            raise UserError(
                f"environment variable {name}: expected a number, found {show_value(value)}; unset it"
            ) from error


def use_utf8() -> None:
    """Start this process's program once more in UTF-8 where the locale cannot name every file.

    For the first moment of a program of its own: the process stays, what it has done is lost.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.ignore_environment:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def make_cache_environment(fallback: Path) -> dict[str, str]:
    """Return the variables that put caches below `fallback` where the user's own folder for them is no use.

    A container or a service may run without a home, or with one that it cannot write.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "snakemake")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache):
            return {}
    except (OSError, RuntimeError):  # Path.home() of a user without one
        return {"XDG_CACHE_HOME": str(fallback.absolute())}


def _open_closed_streams() -> None:
    """Open the null device for standard streams that are closed: a file would take their numbers."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))

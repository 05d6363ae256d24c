"""Errors that a user can act on: one line that says what, where and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: a config, data, a checkpoint, a model's output or the environment.

    The command line prints the message as one line and exits with code 1; no traceback, because the cause is
    outside the code.
    """


def show_value(value: object, most: int = 80) -> str:
    """Return a value as a user may have written it, in one line: escaped, in quotes if text, and not long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or lists without end
        return f"a value of type {type(value).__name__}"
    if len(text) <= most:
        return text
    size = f"{len(value)} characters" if isinstance(value, str) else f"{len(text)} characters as text"
    return f"{text[: most - 20]}... ({size})"


def suggest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest of `names`; an empty string where none is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def make_unknown_error(kind: str, name: str, names: Iterable[str]) -> UserError:
    """Return the error for a name that is not among `names`: it suggests the nearest one and lists all."""
    names = sorted(names)
    shown = show_value(name, 200)
    return UserError(f"unknown {kind} {shown}{suggest(name, names)} (known: {', '.join(names)})")


def list_some(names: list[str], most: int) -> str:
    """Return `names` joined by commas; where there are more than `most`, the rest is only counted."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


SHORTAGES = (
    "can't allocate memory", "cannot allocate memory", "unable to allocate", "out of memory", "bad_alloc",
    "failed to map segment", "can't start new thread",
)  # fmt: skip
"""what torch, NumPy, the loader of libraries and Python say where memory or processes run out"""


def describe_shortage(error: BaseException) -> str | None:
    """Return what to say of an error that means too little memory; None for any other error."""
    said = str(error).lower() if isinstance(error, (RuntimeError, ImportError, OSError)) else ""
    if not isinstance(error, MemoryError) and not any(words in said for words in SHORTAGES):
        return None
    return (
        f"not enough memory here ({describe_error(error)}); give more (compute.mem_mb on a cluster, `ulimit "
        "-v`), or a smaller student, training.batch_size or evaluation.batch_size, or more "
        "training.accumulation"
    )


def describe_error(error: BaseException) -> str:
    """Return the kind of a foreign error and the first line of its message, at most 200 characters of it."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:200]}"

"""Check the address of a tracking store, and keep passwords in addresses out of every message."""

from __future__ import annotations

import importlib.metadata
import os
import re
from urllib.parse import unquote, urlsplit

from cotdistill.config.paths import check_characters, expand_folder, expand_variables, read_variable

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SCHEMES = ("http", "https", "file", "databricks", *DATABASES)
"""what MLflow's registry of tracking stores holds without plug-ins; a path without a scheme is a folder"""
LONGEST = 2000
"""characters of an address"""

_SECRET_KEY = r"[\w.-]*(?:pass|pwd|token|secret|credential)[\w.-]*|api_?key|key|sig"
_QUERY_SECRET = re.compile(rf"(?i)([?&;](?:{_SECRET_KEY})=)([^&;\s'\"]+)")
_DRIVER_WORDS = re.compile(r"(?i)([?&]odbc_connect=)([^&\s'\"]+)")
_USER = re.compile(r"((?:^|(?<=[\s'\"]))(?:[A-Za-z][A-Za-z0-9+.-]*://)?)[^\s'\"]*@")
_VARIABLES = re.compile(r"(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|\$[A-Za-z_][A-Za-z0-9_]*)")


def mask_secrets(text: str) -> str:
    """Return a text with `***` for users and passwords of the addresses in it."""
    text = _DRIVER_WORDS.sub(r"\1***", _USER.sub(r"\1***@", text))
    return _QUERY_SECRET.sub(r"\1***", text)


def check_tracking_uri(uri: str) -> str:
    """Return a tracking URI of a scheme that MLflow knows, without a password. Raises ValueError."""
    if not uri.strip():
        raise ValueError("an address is expected, and this is empty; null means <results>/mlflow.db")
    check_characters(uri)
    if len(uri) > LONGEST:
        raise ValueError(f"an address has {LONGEST} characters at most")
    scheme = re.match(r"(?:([A-Za-z][A-Za-z0-9+.-]+):)?", uri)[1]  # type: ignore[index]
    kind, _, driver = (uri if uri == "databricks" else scheme or "").lower().partition("+")
    known = kind in SCHEMES or kind in _list_plugins()
    if scheme and (not known or (driver and kind not in DATABASES)):
        raise ValueError(f"MLflow knows no store of scheme '{scheme[:40]}' (known: {', '.join(SCHEMES)})")
    _check_secrets(uri, kind)
    if kind in ("http", "https"):
        _check_host(uri)
    elif kind == "sqlite":
        _check_sqlite(uri)
    elif kind in ("", "file") and not uri.startswith("$") and not _are_folders_allowed():
        raise ValueError(
            "MLflow keeps runs in a folder no more: a SQLite store is sqlite:///folder/mlflow.db, or set its "
            "environment variable MLFLOW_ALLOW_FILE_STORE to true"
        )
    return uri


def _list_plugins() -> set[str]:
    """Return the schemes of MLflow's plug-ins, by their entry points: MLflow is not imported."""
    return {entry.name for entry in importlib.metadata.entry_points(group="mlflow.tracking_store")}


def _are_folders_allowed() -> bool:
    """Return what MLflow makes of its variable."""
    return os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").strip().lower() in ("true", "1")


def _check_secrets(uri: str, kind: str) -> None:
    user = re.match(r"[^:]*://(.*)@", uri.split("?")[0], re.DOTALL)
    held = user[1] if user and kind not in ("", "file", "sqlite") else ""
    if held and kind not in DATABASES:
        raise ValueError(
            "a user or a password must not stand in the address, as it would be stored and shown: set the "
            "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    secrets = [held.partition(":")[2], *(match[2] for match in _QUERY_SECRET.finditer(unquote(uri)))]
    if any(secret and not _VARIABLES.fullmatch(secret) for secret in secrets):
        raise ValueError(
            "a password or a token must not stand in the address, as it would be stored and shown: put it "
            "in an environment variable and write ${DB_PASSWORD} in its place"
        )


def _check_host(uri: str) -> None:
    try:
        parts = urlsplit(_VARIABLES.sub("x", uri))
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # a port that is no number, or half of an IPv6 address
        host = None
    if not host or re.search(r"\s", uri):
        raise ValueError("an address such as http://host:5000 is expected")


def _check_sqlite(uri: str) -> None:
    file = re.sub(r"^[^:]*:", "", uri).split("?")[0]
    if not file.startswith("///") or file.strip("/") in ("", ":memory:"):
        raise ValueError("a SQLite store is a file, as in sqlite:///folder/mlflow.db")
    if file.startswith("///~"):
        raise ValueError("~ means nothing in an address: write sqlite:///$HOME/... in its place")


def expand_uri(uri: str) -> tuple[str, dict[str, str]]:
    """Return a tracking URI as it is opened, and the variables that it takes by value. Raises ValueError.

    Only whoever opens the store may see it: `hide_values` takes the values out of what is said of it.
    """
    taken: dict[str, str] = {}

    def read(name: str) -> str:
        value = read_variable(name)
        taken[value] = f"${{{name}}}"
        return value

    if uri.startswith("~"):
        return expand_folder(uri), taken
    return expand_variables(uri, read), taken


def hide_values(text: str, taken: dict[str, str]) -> str:
    """Return a text without users, passwords, and the values of variables: their names stand instead."""
    for value in sorted(taken, key=len, reverse=True):
        text = text.replace(value, taken[value]).replace(unquote(value), taken[value])
    return mask_secrets(text)

"""Fingerprints of the code behind a stage, which tell whether an edit of a file makes the stage run again.

A fingerprint covers the modules of this package that a stage imports, found by reading the import statements
(nothing is imported). Comments, docstrings and layout do not count. Modules that cannot change a number once
the run's settings are known are left out (`NEUTRAL`): the digest of the settings is compared apart.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
NEUTRAL = (
    "config", "jobs", "orchestration", "cli", "common.errors", "common.files", "common.fingerprint",
    "common.registry", "common.stopping", "runs.answers", "runs.code", "runs.documents", "runs.experiment",
    "runs.folder", "runs.grid", "runs.history", "runs.journal", "runs.lease", "runs.outputs",
)  # fmt: skip
"""modules and packages that carry settings, errors, files and the order of a job's steps, not results"""


@cache
def fingerprint(*modules: str) -> str:
    """Return a digest (16 hex digits) of `modules` (names below the package) and all they import from it."""
    found = closure(*modules)
    text = "\n".join(f"{module} {_read(module)[0]}" for module in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def closure(*modules: str) -> set[str]:
    """Return the names of the modules that `fingerprint` covers."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found and not _is_neutral(module):
            found.add(module)
            waiting += _read(module)[1]
    return found


def _is_neutral(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in NEUTRAL)


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a module's code, and the names of what it imports from this package.

    The syntax tree is not kept: Snakemake, which calls this, would have the garbage collector walk it often.
    """
    base = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    names: set[str] = set()
    for node in _list_statements(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # a statement that is a string is a docstring; an empty body would not be valid code
            kept = [item for item in body if not _is_text(item)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the name may be a module or something inside the package
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name.removeprefix("cotdistill.") for name in names if name.startswith("cotdistill.")}
    code = hashlib.sha256(ast.dump(tree).encode())
    data = base.with_suffix(".yaml")
    if data.is_file():  # a module reads the data file of its name, as analysis.reported does
        code.update(data.read_bytes())
    return code.hexdigest(), tuple(sorted(name for name in own if _exists(name)))


def _list_statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree that are or hold statements; expressions, which import nothing, are left out.
    """
    yield node
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, part, None)
        for child in inner if isinstance(inner, list) else ():
            yield from _list_statements(child)


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _exists(module: str) -> bool:
    base = PACKAGE.joinpath(*module.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()

"""Read the Snakemake profile that a run would use, as far as the checks need it."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cotdistill.common.errors import UserError

_FILE = re.compile(r"(?:profile|config)(?:\.v(\d+)\+)?\.yaml")
_MINUTES = {"m": 1, "h": 60, "d": 1440, "w": 10_080}


@dataclass(frozen=True)
class Profile:
    """A profile's settings; empty where there is none."""

    path: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def executor(self) -> str:
        """What runs the jobs: `local` unless the profile says otherwise."""
        return str(self.settings.get("executor", "local"))

    def number(self, key: str, otherwise: int) -> int:
        """Return a setting as a whole number, `otherwise` where it is none."""
        try:
            return int(self.settings[key])
        except (KeyError, TypeError, ValueError):
            return otherwise

    @property
    def local_gpus(self) -> int:
        """The GPUs of one machine that its jobs share; 0 where the profile counts none."""
        count = _read_value(_read_pairs(self.settings.get("resources")).get("gpu"))
        return count if isinstance(count, int) else 0

    def resources(self, rule: str, own: dict[str, Any]) -> dict[str, Any]:
        """Return a job's resources: the profile's defaults, the rule's `own`, the profile's for it."""
        named = _read_pairs(self.settings.get("set-resources"))
        of_rule = named.get(rule)
        chosen = _read_pairs(of_rule) if isinstance(of_rule, dict) else {
            key.removeprefix(f"{rule}:"): value for key, value in named.items() if key.startswith(f"{rule}:")
        }  # fmt: skip
        default = _make_plain(_read_pairs(self.settings.get("default-resources")))
        merged = {**default, **own, **_make_plain(chosen)}
        for key in ("mem_mb", "runtime", "gpu"):
            if not isinstance(merged.get(key), int):  # an expression, which only Snakemake can work out
                merged[key] = own.get(key)
        return merged


def find(name: str, root: Path = Path()) -> Profile:
    """Return the profile of that name or path. Raises UserError where there is none or it cannot be read."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "snakemake")
    places = [Path(name)] if "/" in name else [
        root / name, root / "profiles" / name, home / name, Path("/etc/xdg/snakemake", name),
    ]  # fmt: skip
    for place in places:
        file = place if place.is_file() else _find_newest(place)
        if file is not None:
            return Profile(file, _read(file))
    raise UserError(f"no profile '{name}' (looked for {', '.join(map(str, places))})")


def _find_newest(folder: Path) -> Path | None:
    """Return the file that this Snakemake reads: of the highest version that is not above its own."""
    try:
        own = int(importlib.metadata.version("snakemake").split(".")[0])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        own = 9
    found = [(int(match[1] or 0), file) for file in (folder.iterdir() if folder.is_dir() else ())
             if (match := _FILE.fullmatch(file.name))]  # fmt: skip
    return max(((version, file) for version, file in found if version <= own), default=(0, None))[1]


def _read(file: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{file}: expected settings and values, found {type(value).__name__}")
    return {str(key): item for key, item in value.items()}


def _read_pairs(value: Any) -> dict[str, Any]:
    """Return resources as `{a: 1}`; `[a=1]` is another way to write them."""
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    items = value if isinstance(value, list) else []
    return dict(str(item).split("=", 1) for item in items if "=" in str(item))


def _make_plain(values: dict[str, Any]) -> dict[str, Any]:
    plain = {key: _read_value(value) for key, value in values.items()}
    runtime = re.fullmatch(r"(\d{1,9})\s*([mhdw])", str(plain.get("runtime", "")))
    if runtime:
        plain["runtime"] = int(runtime[1]) * _MINUTES[runtime[2]]
    return plain


def _read_value(value: Any) -> Any:
    """Return a resource as Snakemake reads it: text that is a Python literal is that literal."""
    if not isinstance(value, str):
        return value
    try:
        found = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    return found if isinstance(found, (int, str)) else value

"""One file per plug-in: a folder of modules, each registered under its file name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from cotdistill.common.errors import make_unknown_error


class Registry:
    """The modules of one package, by name. Adding a plug-in is adding a file to the package.

    Names are read from the folder without importing; a module is imported when it is asked for.
    """

    def __init__(self, package: str, kind: str) -> None:
        self.package, self.kind = package, kind

    def names(self) -> list[str]:
        """Return the names of the plug-ins, sorted."""
        path = importlib.import_module(self.package).__path__
        return sorted(found.name for found in pkgutil.iter_modules(path) if not found.name.startswith("_"))

    def module(self, name: str) -> ModuleType:
        """Import the plug-in `name`; return its module. Raises UserError that suggests the nearest name."""
        if name not in self.names():
            raise make_unknown_error(self.kind, name, self.names())
        return importlib.import_module(f"{self.package}.{name}")

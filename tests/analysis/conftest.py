"""The simulator of the benchmark, so that the tests and the long run simulate the same experiments."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SIMULATOR = Path(__file__).resolve().parents[2] / "benchmarks" / "simulate_statistics.py"


@pytest.fixture(scope="session")
def simulator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate_statistics", SIMULATOR)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module

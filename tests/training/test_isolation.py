"""Training and evaluation are of no workflow manager, no tracker and no network."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.train import train

IMPORT = """
import json, sys
import cotdistill.jobs.train, cotdistill.jobs.evaluate
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_training_imports_neither_snakemake_nor_mlflow(python: Callable[..., str]):
    modules = set(json.loads(python("-c", IMPORT)))
    assert "cotdistill" in modules and "torch" in modules
    assert not modules & {"snakemake", "mlflow", "matplotlib", "pandas", "datasets", "sqlalchemy"}


def test_training_and_evaluation_open_no_socket(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: Any, **more: Any) -> Any:
        raise AssertionError("a socket was opened")

    run = tiny.run(tmp_path, "mi", evaluation={"rationales": True})
    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    train(run)
    assert evaluate(run).strict.test_n == 8

"""A small legal config, and the complaint about a broken one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cotdistill.common.errors import UserError
from cotdistill.runs.experiment import load


@pytest.fixture
def config() -> dict[str, Any]:
    """The values of a small legal config file, to change at will."""
    return {
        "experiment": "small",
        "datasets": ["demo"],
        "students": [{"name": "tiny", "scratch": {}}],
        "methods": ["finetune", "dss", "mi"],
        "seeds": [0, 1],
    }


@pytest.fixture
def complaint(tmp_path: Path) -> Callable[[Any], str]:
    """The one-line message that refuses these values (or this text) as a config file."""

    def refuse(content: Any) -> str:
        file = tmp_path / "bad.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load(file)
        message = str(caught.value)
        assert message.startswith(str(file)), "names the file first"
        assert "\n" not in message
        return message.removeprefix(str(file))

    return refuse

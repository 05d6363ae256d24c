"""`mi` and its kin without the term are `dss`, to the last bit of a training with dropout; with it, not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.jobs.train import train
from cotdistill.runs.grid import Run

Read = Callable[[Run], Any]


@pytest.mark.parametrize(
    ("method", "settings"),
    [("mi", {"variant": "released"}), ("mi", {"variant": "paper"}), ("infonce", {}), ("gaussian", {})],
)
def test_beta_0_trains_as_dss_bit_for_bit(
    tiny: Any, trained: Callable[[str], Run], tmp_path: Path, weights: Read, history: Read, method: str,
    settings: dict[str, Any],
):  # fmt: skip
    dss = trained("dss")
    assert dss.student.scratch.dropout > 0
    mi = tiny.run(tmp_path, method, {"beta": 0, **settings}, evaluation={"rationales": True})
    train(mi)
    assert weights(mi) == weights(dss)
    assert (mi.folder / "model/model.safetensors").read_bytes() == (
        dss.folder / "model/model.safetensors"
    ).read_bytes()
    lines = history(mi)
    values = [line.pop("loss/mutual_information") for line in lines if "loss/total" in line]
    assert lines == history(dss)
    assert values and all(value > 0 for value in values), "the term is logged though it weighs nothing"


def test_beta_changes_the_training(trained: Callable[[str], Run], weights: Read, history: Read):
    dss, mi = trained("dss"), trained("mi")
    assert mi.config["method_settings"]["beta"] == 0.1
    assert weights(mi) != weights(dss)
    first, baseline = history(mi)[0], history(dss)[0]
    assert first["loss/total"] == pytest.approx(
        0.5 * first["loss/label"] + 0.5 * first["loss/rationale"] + 0.1 * first["loss/mutual_information"]
    )
    assert first["gradient_norm"] != baseline["gradient_norm"]

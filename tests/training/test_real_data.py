"""The published data, if the machine has it: prepared, checked token by token, and trained on."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.data.prepared import Prepared
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.prepare import prepare
from cotdistill.jobs.train import train
from cotdistill.runs.grid import Run

pytestmark = pytest.mark.skipif(
    not os.environ.get("COTDISTILL_DATA"), reason="COTDISTILL_DATA names no folder of the published data"
)
SIZES = {
    "svamp": {"train": 720, "valid": 80, "test": 200},
    "cqa": {"train": 8766, "valid": 975, "test": 1221},
}
MORE = {"steps": 12, "eval_every": 12, "log_every": 1, "batch_size": 4, "evaluation": {"max_new_tokens": 4,
        "batch_size": 100}}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tiny: Any, once: Any) -> Callable[[str], Run]:
    """The prepared pair of a dataset and a scratch student."""

    def of(name: str) -> Run:
        def make(folder: Path) -> Run:
            scratch = {"vocabulary": 400}
            return type(tiny)(tiny.data).run(folder, dataset={"name": name}, scratch=scratch, **MORE)

        def build(folder: Path) -> None:
            run = make(folder)
            prepare(run.experiment, run.dataset, run.student, run.prepared)

        return make(once(f"real-{name}", build))

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_prepared_ids_are_those_of_the_joined_text(pair: Callable[[str], Run], name: str):
    prepared = Prepared(pair(name).prepared)
    tokenizer, manifest = prepared.tokenizer(), prepared.manifest
    assert manifest["sizes"] == SIZES[name]
    assert manifest["vocabulary"] == len(tokenizer) <= 400
    for split in ("train", "valid", "test"):
        table = prepared.table(split)
        assert table.num_rows == SIZES[name][split]
        rows = table.slice(0, 200).to_pylist()
        prefixed = tokenizer([f"predict: {row['input']}" for row in rows])["input_ids"]
        prefix = tokenizer("predict:", add_special_tokens=False)["input_ids"]
        for row, ids in zip(rows, prefixed, strict=True):
            assert [*prefix, *row["input_ids"], 1] == ids
            # SVAMP's equations and CommonsenseQA's options come back as they were
            assert tokenizer.decode(row["label_ids"]) == " ".join(row["label"].split())
            bridged = f"{row['rationale']} So the answer is: {row['label']}"
            bridge = tokenizer("So the answer is:", add_special_tokens=False)["input_ids"]
            joined = tokenizer(bridged, add_special_tokens=False)["input_ids"]
            assert [*row["rationale_ids"], *bridge, *row["label_ids"]] == joined


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dss", "mi"])
def test_trains_on_svamp(
    pair: Callable[[str], Run], tiny: Any, tmp_path: Path, history: Callable[..., Any], method: str
):
    prepared = pair("svamp").prepared
    run = tiny.run(tmp_path, method, dataset={"name": "svamp"}, scratch={"vocabulary": 400}, **MORE)
    shutil.rmtree(run.prepared)  # the tiny pair's
    shutil.copytree(prepared, run.prepared)
    train(run)
    metrics = evaluate(run)
    assert metrics.strict.test_n == 200 and metrics.teacher["test"].n == 200
    lines = [line for line in history(run) if "loss/total" in line]
    # a fresh student guesses among all pieces: each cross-entropy starts near ln(vocabulary)
    chance = math.log(Prepared(run.prepared).manifest["vocabulary"])
    assert len(lines) == 12
    for term in ("label", "rationale"):
        assert lines[0][f"loss/{term}"] == pytest.approx(chance, rel=0.3)
        assert lines[-1][f"loss/{term}"] < lines[0][f"loss/{term}"]

"""The real data, if the machine has it, and a small invented copy of its layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Lines = Callable[[Path, list[Any]], None]


@pytest.fixture(scope="session")
def dss_root() -> Path:
    """The data root named by COTDISTILL_DATA; the test is skipped where it is unset."""
    root = os.environ.get("COTDISTILL_DATA")
    if not root:
        pytest.skip("COTDISTILL_DATA is not set: it names the folder of the published data")
    return Path(root)


def write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_batches(folder: Path, split: str, outputs: list[str], size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(outputs), size)):
        file = folder / f"{split}_CoT_{number}.json"
        file.write_text(json.dumps(outputs[start : start + size]), encoding="utf-8")


@pytest.fixture
def lines() -> Lines:
    """Write a JSON lines file."""
    return write_lines


@pytest.fixture
def made_root(tmp_path: Path) -> Path:
    """A data root with a few invented rows of every dataset on disk, in batches of 2 outputs."""
    root = tmp_path / "data"
    colours = ["red", "blue", "green", "grey", "pink"]
    for split, count in {"train": 24, "valid": 3, "test": 4}.items():
        if split != "valid":
            write_lines(root / f"cqa/cqa_{split}.json", [
                {"id": f"{split}{i}", "question": f"Which colour has number {i}?", "choices": colours,
                 "answer": colours[i % 5]} for i in range(count)
            ])  # fmt: skip
            cqa = [
                f"Number {i} it is. So the answer is (a) {colours[i % 5]}.\n\nQ: more" for i in range(count)
            ]
            write_batches(root / "cqa/llm", split, cqa, 2)
            write_lines(root / f"svamp/svamp_{split}.json", [
                {"input": f"Ann has {i} pears and buys 2.\nHow many now?", "label": f"( {i}.0 + 2.0 )"}
                for i in range(count)
            ])  # fmt: skip
            write_batches(
                root / "svamp/llm", split, [f"Add 2. The answer is (2 + {i})." for i in range(count)], 2
            )
        for name, answer in {"esnli": "\nAnswer: neutral\n\nPremise: x",
                             "anli1": " So the answer is neutral.\n\nPremise: x"}.items():  # fmt: skip
            write_lines(root / f"{name}/{name}_{split}.json", [
                {"premise": f"A man has {i} hats.", "hypothesis": "He sings.", "label": i % 3}
                for i in range(count)
            ])  # fmt: skip
            write_batches(root / name / "llm", split, [f"Hats say nothing.{answer}"] * count, 2)
    write_lines(root / "asdiv/asdiv_train.json", [
        {"Body": "Seven pears and two.", "Question": "How many?", "Formula": formula, "Answer": answer}
        for formula, answer in [("7+2=9", "9 (pears)"), ("(3+4)*2=14", "14"), ("7/2=3 r 1", "3 (pears)"),
                                ("x=5", "5 (pears)"), (".5*4=2", "two")]
    ])  # fmt: skip
    write_batches(root / "asdiv/llm", "train", ["Add. The answer is (7 + 2)."] * 5, 2)
    for split, count in {"train": 24, "test": 4}.items():
        write_lines(tmp_path / f"custom/{split}.jsonl", [
            {"input": f"in {i}", "label": "yes", "rationale": "why", "teacher_label": "no"}
            for i in range(count)
        ])  # fmt: skip
    return root

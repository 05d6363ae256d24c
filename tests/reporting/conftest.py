"""A synthetic experiment of finished run folders: 2 datasets x 3 methods x 3 seeds, no training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotdistill.common.files import hash_file, read_sealed, write_json, write_jsonl
from cotdistill.common.files import seal as seal_document
from cotdistill.config.models import Experiment
from cotdistill.runs.documents import (
    Answer,
    Environment,
    Metrics,
    RunConfig,
    Score,
    StrictScore,
    TeacherScore,
    write_answers,
)
from cotdistill.runs.grid import Run, expand

TERMS = {
    "finetune": ("label",),
    "single_task": ("label",),
    "dss": ("label", "rationale"),
    "mi": ("label", "rationale", "mutual_information"),
}
GAIN = {"finetune": 0, "single_task": 1, "dss": 8, "mi": 14}
N_TEST = 200


def make_experiment(results: Path, **settings: Any) -> Experiment:
    """The experiment of these tests; `settings` replace keys of the config."""
    config: dict[str, Any] = {
        "experiment": "made-up",
        "datasets": ["cqa", "svamp"],
        "students": [{"name": "tiny", "scratch": {}}],
        "methods": ["finetune", "dss", "mi"],
        "seeds": [0, 1, 2],
        "results": str(results),
    }
    return Experiment.model_validate({**config, **settings})


def write_run(run: Run, steps: int = 100) -> None:
    """Write the folder of a finished run, with numbers that follow from the run's axes."""
    draw = random.Random(run.id)
    objective = run.config["method_settings"]["method"]
    correct = 90 + GAIN.get(objective, 0) + 3 * (run.seed % 3) + draw.randrange(3)
    last = correct - draw.randrange(3)
    files = run.files
    RunConfig(run=run.id, hash=run.hash, engine="packed", config=run.config).write(files.config)
    write_jsonl(files.history, _history(objective, draw, steps, correct / N_TEST))
    write_answers(files.predictions, _predictions(run, correct))
    Environment(
        run=run.id,
        hash=run.hash,
        versions={"torch": "2"},
        hardware={"cpu": "made up"},
        device="cpu",
        engine="packed",
        git_commit="0123abc",
        data_checksum=f"sum-of-{run.dataset.name}",
        split_ids={split: f"ids-of-{run.dataset.name}-{split}" for split in ("train", "valid", "test")},
        student={},
        wall_s=60.0,
        peak_memory_mb=512.0,
        started_at="2026-01-02T03:04:05+00:00",
        finished_at="2026-01-02T03:05:05+00:00",
    ).write(files.environment)
    split = TeacherScore(accuracy=0.75, correct=150, n=N_TEST, unparsed=1)
    groups = N_TEST // 2 if run.dataset.name == "svamp" else N_TEST
    score = {"test_n": N_TEST, "test_groups": groups, "mean_confidence": 0.8}
    Metrics(
        run=run.id,
        hash=run.hash,
        strict=StrictScore(
            step=steps - 20,
            valid_accuracy=correct / N_TEST,
            test_accuracy=correct / N_TEST,
            test_correct=correct,
            **score,
        ),
        published=Score(step=steps, test_accuracy=last / N_TEST, test_correct=last, **score),
        measures=_measures(run, correct),
        teacher={"train": split, "valid": split, "test": split},
        sizes={"train": round(720 * run.fraction), "valid": 80, "test": N_TEST},
        evaluation_wall_s=1.5,
        files={path.name: hash_file(path) for path in digested(run)},
    ).write(files.metrics)


def digested(run: Run) -> tuple[Path, ...]:
    """The files whose digests `metrics.json` tells."""
    return run.files.config, run.files.history, run.files.environment, run.files.predictions


def change_document(path: Path, key: str, value: Any) -> None:
    """Write another value at a dotted key of a sealed document, under a seal that fits."""
    content = read_sealed(path, "")
    *outer, last = key.split(".")
    place = content
    for name in outer:
        place = place[name]
    place[last] = value
    write_json(path, seal_document(content))


def seal_files(run: Run) -> None:
    """Have `metrics.json` tell the files beside it as they are now."""
    change_document(run.files.metrics, "files", {path.name: hash_file(path) for path in digested(run)})


def _predictions(run: Run, correct: int) -> list[Answer]:
    """Hard examples are hard for every run; svamp has no options, and only some methods write rationales."""
    draw = random.Random(run.id + "predictions")
    hard = random.Random(run.dataset.name)
    difficulty = [hard.random() + 0.5 * draw.random() for _ in range(N_TEST)]
    right = set(sorted(range(N_TEST), key=difficulty.__getitem__)[:correct])
    lines = []
    for number in range(N_TEST):
        confidence = min(max(1.2 - 0.7 * difficulty[number], 0.25), 0.99)
        line: dict[str, Any] = {
            "id": f"{run.dataset.name}-{number}", "input": "which?", "gold": "a",
            "prediction": "a" if number in right else "b", "correct": number in right,
            "confidence": confidence, "options": [], "option_probabilities": [],
        }  # fmt: skip
        if run.dataset.name == "svamp":
            line["group"] = f"story {number // 2}"
        if run.dataset.name == "cqa":
            line["options"] = ["a", "b", "c"]
            best, rest = confidence, (1 - confidence) / 2
            line["option_probabilities"] = [best, rest, rest] if number in right else [rest, best, rest]
        if len(TERMS.get(run.method.method, ())) > 1:
            line |= {"rationale": "it is a.", "teacher_rationale": "so a."}
        lines.append(Answer(**line))
    return lines


def _measures(run: Run, correct: int) -> dict[str, Any]:
    draw = random.Random(run.id + "measures")

    def calibration() -> dict[str, Any]:
        return {
            "n": N_TEST, "bins": 10, "accuracy": correct / N_TEST, "mean_confidence": 0.7,
            "ece_width": draw.uniform(0.02, 0.2), "ece_mass": draw.uniform(0.02, 0.2),
            "brier": draw.uniform(0.1, 0.3), "nll": draw.uniform(0.3, 1.2),
        }  # fmt: skip

    found: dict[str, Any] = {"calibration": {"sequence": calibration()}}
    if run.dataset.name == "cqa":
        found["calibration"]["options"] = calibration()
    if len(TERMS.get(run.method.method, ())) > 1:
        gain = 0.1 if run.method.method == "mi" else 0.0
        found["rationale"] = {
            "n": N_TEST, "bleu": draw.uniform(10, 30), "bleu_signature": "nrefs:1", "words": 9.5,
            "words_teacher": 11.0, "repetition": draw.uniform(0, 0.2), "states_label": 0.9,
            "faithful_prediction": draw.uniform(0.5, 0.9), "faithful_gold": draw.uniform(0.3, 0.6),
            **{name: draw.uniform(0.2, 0.5) for name in ("rouge1", "rouge2", "rougeL")},
        }  # fmt: skip
        found["predictability"] = {"n": 256, "candidates": 64, "moved": 1.0}
        for space in ("decoder", "output"):
            share = draw.uniform(0.4, 0.6) + gain
            controls = {"untrained": 0.3, "same_label": 0.35, "shuffled": 0.0}
            found["predictability"][space] = {
                "share": share, "retrieval": 0.5, "excess": share - 0.35, "excess_retrieval": 0.2,
                **{name: {"share": value, "retrieval": 0.3} for name, value in controls.items()},
            }  # fmt: skip
    return found


def _history(objective: str, draw: random.Random, steps: int, accuracy: float) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        fall = math.exp(-3 * step / steps)
        names = [f"loss/{term}" for term in TERMS.get(objective, ("label",))]
        terms = {name: (3 + k) * fall + 0.5 + 0.1 * draw.random() for k, name in enumerate(names)}
        line = {"step": step, "epoch": step / 50, "loss/total": sum(terms.values()), **terms}
        lines.append({**line, "learning_rate": 5e-5 * (1 - step / steps), "gradient_norm": 1.0})
        if step % 20 == 0:
            value = accuracy * (1 - fall) + 0.02 * draw.random()
            found = {"valid/accuracy": value, "valid/n": 80}
            if len(TERMS.get(objective, ("label",))) > 1:
                names = [f"valid/predictability/{space}/{key}" for space in ("decoder", "output")
                         for key in ("share", "retrieval", "excess")]  # fmt: skip
                found |= {name: (1 - fall) * (1 + k) / 9 + draw.random() / 10 for k, name in enumerate(names)}
            lines.append({"step": step, "epoch": step / 50, **found})
    return lines


@pytest.fixture(scope="session")
def change() -> Callable[[Run, Path, str, Any], None]:
    """Change a value of a finished run's document: `change(run, file, dotted key, value)`; all else fits."""

    def write(run: Run, path: Path, key: str, value: Any) -> None:
        change_document(path, key, value)
        if path != run.files.metrics:
            seal_files(run)

    return write


@pytest.fixture(scope="session")
def seal() -> Callable[[Run], None]:
    """Have a run's `metrics.json` tell the files beside it as they are now."""
    return seal_files


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Experiment]:
    """Make an experiment and write all its run folders but those whose id is in `skip`."""

    def build(skip: tuple[str, ...] = (), steps: int = 100, **settings: Any) -> Experiment:
        experiment = make_experiment(tmp_path / "results", **settings)
        for run in expand(experiment):
            if run.id not in skip:
                write_run(run, steps)
        return experiment

    return build

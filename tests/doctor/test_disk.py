"""Bytes of the plan against bytes of the disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from cotdistill.orchestration.doctor import disk
from cotdistill.students import sizes

Make = Callable[..., Any]
Of = Callable[[Any], Any]

V11_BASE = {"model_type": "t5", "d_model": 768, "d_ff": 2048, "d_kv": 64, "num_heads": 12, "num_layers": 12,
            "num_decoder_layers": 12, "vocab_size": 32128, "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False}  # fmt: skip


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_free(size: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**15, 0, int(size)))

    return set_free


@pytest.mark.parametrize(
    ("shape", "gated", "tied", "count"),
    [
        ((512, 1024, 64, 6, 8, 8, 32128), True, False, 76_961_152),  # t5-v1_1-small
        ((768, 2048, 64, 12, 12, 12, 32128), True, False, 247_577_856),  # t5-v1_1-base
        ((1024, 2816, 64, 16, 24, 24, 32128), True, False, 783_150_080),  # flan-t5-large
        ((512, 2048, 64, 8, 6, 6, 32128), False, True, 60_506_624),  # t5-small
        ((768, 3072, 64, 12, 12, 12, 32128), False, True, 222_903_552),  # t5-base
    ],
)
def test_parameters_are_those_of_the_published_checkpoints(
    shape: tuple[int, ...], gated: bool, tied: bool, count: int
) -> None:
    assert sizes.count_parameters(*shape, gated=gated, tied=tied) == count  # type: ignore[misc]
    assert count in disk.KNOWN.values() or tied


@pytest.mark.slow
def test_parameters_of_a_scratch_student_are_those_that_are_built(make: Make) -> None:
    from cotdistill.students.scratch import build

    (entry,) = make().experiment.students
    built = sum(p.numel() for p in build(entry.scratch, entry.scratch.vocabulary, 0).parameters())
    assert disk._estimate_weights(entry) == 4 * built


def test_levels_follow_the_free_space(make: Make, only: Of, free: Callable[[float], None]) -> None:
    site = make({"jobs": 1}, students=["google/t5-v1_1-base"])
    weights = 4 * 247_577_856
    needed = 2 * (2 * weights + disk.RUN) + 6 * weights  # two runs, one of them in training
    for part, level in ((1.01, "FAIL"), (0.9, "warn"), (0.5, "ok")):
        free(needed / part)
        found = only(disk.check_disk(site))
        assert found.level == level and found.text.startswith("9.91 GB for 2 runs, 1 at once; ")


@pytest.mark.parametrize(("keep", "models"), [("both", 4), ("best", 3), ("last", 3), ("none", 2)])
def test_what_is_not_kept_is_counted_for_runs_at_work_alone(
    keep: str, models: int, make: Make, only: Of, free: Callable[[float], None]
) -> None:
    """Two runs, one at once: that one has both checkpoints and its states until it is evaluated."""
    free(10**12)
    site = make({"jobs": 1}, students=["google/t5-v1_1-base"], training={"keep": keep})
    needed = 2 * disk.RUN + (models + 6) * 4 * 247_577_856
    assert only(disk.check_disk(site)).text.startswith(f"{needed / 1e9:.3g} GB for 2 runs")


def test_keeping_less_is_advised_where_it_would_help(
    make: Make, only: Of, free: Callable[[float], None]
) -> None:
    free(10**9)
    students = ["google/t5-v1_1-base", {"pretrained": "google/t5-v1_1-small", "training": {"keep": "none"}}]
    found = only(disk.check_disk(make({"jobs": 1}, students=students, training={"keep": "best"})))
    assert found.level == "FAIL" and "keep fewer checkpoints (training.keep)" in found.advice
    site = make({"jobs": 1}, students=students, training={"keep": "none"})
    assert "training.keep" not in only(disk.check_disk(site)).advice


def test_finished_runs_need_nothing_more(make: Make, only: Of, free: Callable[[float], None]) -> None:
    free(10**12)
    site = make()
    for run in site.grid.runs.values():
        run.folder.mkdir(parents=True)
        (run.folder / "training.json").touch()
    assert only(disk.check_disk(site)).text.startswith("0 GB for 0 runs, 0 at once; 1,000 GB free")


def test_a_local_checkpoint_is_measured_by_its_config(make: Make, work: Path) -> None:
    (work / "t5").mkdir()
    for config, count in ((V11_BASE, 247_577_856), ({"d_model": "x"}, None), ([], None)):
        (work / "t5" / "config.json").write_text(json.dumps(config))
        (entry,) = make(students=["./t5"]).experiment.students
        assert disk._estimate_weights(entry) == (4 * count if count else None)


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_is_measured_by_what_it_stores(make: Make, work: Path, tied: bool) -> None:
    """transformers 5 writes the same config for both."""
    from safetensors.torch import save_file

    (work / "t5").mkdir()
    (work / "t5" / "config.json").write_text(json.dumps({**V11_BASE, "tie_word_embeddings": True}))
    tensors = {"shared.weight": torch.ones(20, 8), "encoder.final_layer_norm.weight": torch.ones(8)}
    other = "encoder.embed_tokens.weight" if tied else "lm_head.weight"
    save_file({**tensors, other: torch.ones(20, 8)}, work / "t5" / "model.safetensors")
    (entry,) = make(students=["./t5"]).experiment.students
    assert disk._estimate_weights(entry) == 4 * (168 if tied else 328)


def test_a_student_of_unknown_size_is_named(make: Make, only: Of) -> None:
    found = only(disk.check_disk(make(students=["somebody/their-t5"])))
    assert found.level == "warn" and "size not known: their-t5" in found.text


@pytest.mark.parametrize(
    ("settings", "slurm", "jobs"),
    [({"jobs": 7}, True, 7), ({"jobs": "unlimited"}, True, 2), ({}, True, 2),
     ({"cores": 8}, False, 4), ({"cores": 8, "resources": ["gpu=3"]}, False, 3), ({"cores": 1}, False, 1)],
)  # fmt: skip
def test_jobs_at_once(settings: Any, slurm: bool, jobs: int, make: Make) -> None:
    site = make(settings, training={"device": "cuda"})
    site.no_slurm = "" if slurm else "no Slurm on this machine"
    assert disk._count_jobs(site) == jobs

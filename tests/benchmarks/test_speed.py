"""What the benchmark counts, chooses and prints. No test asserts a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

SHAPE = {"d_model": 24, "d_ff": 40, "d_kv": 8, "num_heads": 2, "num_layers": 2}


@pytest.mark.parametrize("gradients", [False, True])
def test_flops_are_those_that_torch_counts(gradients: bool) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.speed import flops
    from benchmarks.speed.students import build

    model = build(SHAPE, vocabulary=50)
    inputs, labels = torch.randint(3, 50, (4, 7)), torch.randint(3, 50, (4, 5))
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=inputs, labels=labels).loss
        if gradients:
            loss.backward()
    expected = 4 * flops.forward(model.config, 7, 5)
    assert counter.get_total_flops() == (3 if gradients else 1) * expected
    assert flops.step(model.config, [([7] * 4, [5] * 4)], padded=False) == 3 * expected


def test_padding_counts_where_it_is_computed() -> None:
    from benchmarks.speed import flops
    from benchmarks.speed.students import build

    config = build(SHAPE, vocabulary=50).config
    tasks = [([3, 7], [2, 5])]
    assert flops.step(config, tasks, padded=True) == flops.step(config, [([7, 7], [5, 5])], padded=False)
    assert flops.step(config, tasks, padded=True) > flops.step(config, tasks, padded=False)


def test_what_is_computed_is_counted_for_a_plain_pass() -> None:
    from benchmarks.speed import flops
    from benchmarks.speed.students import build
    from benchmarks.speed.ways import Computed

    model = build(SHAPE, vocabulary=50)
    inputs, labels = torch.randint(3, 50, (4, 7)), torch.randint(3, 50, (4, 5))
    with Computed(model) as seen:
        model(input_ids=inputs, labels=labels).loss.backward()
    assert seen.positions == {"encoder": 28, "decoder": 20}
    assert seen.flops == flops.step(model.config, [([7] * 4, [5] * 4)], padded=True)


def test_products_added_in_place_are_counted() -> None:
    from benchmarks.speed.students import build
    from benchmarks.speed.ways import Computed

    with Computed(build(SHAPE, vocabulary=50)) as seen:
        torch.zeros(3, 5).addmm_(torch.ones(3, 4), torch.ones(4, 5))
    assert seen.flops == 2 * 3 * 4 * 5


def test_students_are_untied_and_unscaled() -> None:
    from benchmarks.speed.students import SHAPES, build

    model = build(SHAPES["tiny"], vocabulary=60)
    assert model.lm_head.weight is not model.shared.weight
    assert not model.config.scale_decoder_outputs
    assert model.lm_head.weight.shape == (60, SHAPES["tiny"]["d_model"])


def test_cells_are_a_selection_or_all_combinations() -> None:
    from benchmarks.speed import __main__ as speed

    plain = speed._parser().parse_args([])
    assert speed.chosen(plain) == speed.SELECTION
    options = speed._parser().parse_args(["--methods", "dss", "mi-paper", "--batch", "16", "64"])
    cells = speed.chosen(options)
    assert len(cells) == 8 and {cell.shape for cell in cells} == {"small"}


def test_a_process_without_memory_is_told_from_other_faults() -> None:
    from benchmarks.speed.children import ran_out

    assert ran_out(-9, "")
    assert ran_out(1, "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    assert not ran_out(1, "ValueError: no such thing")
    assert not ran_out(0, "a warning about: out of memory")


CELL = {"shape": "small", "method": "dss", "data": "cqa", "batch": 10, "precision": "fp32"}


def found() -> dict[str, Any]:
    """A cell as its children report it."""

    def facts(computed: float, encoder: float, decoder: float | None) -> dict[str, Any]:
        padding = {"encoder": encoder, "decoder": decoder}
        return {"real_flops": [4e9] * 3, "computed": computed, "padding": padding}

    return {
        "cell": CELL, "matrix_flops": [2e9, 2e9],
        "seconds": {
            "published": [2.0, 6.0, 4.0], "published, grouped by length": [2.0, 3.0, 1.0],
            "packed": [1.0, 2.0, 1.0], "reference": [2.0, 3.0, 1.0],
        },
        "facts": {
            "published": facts(2.0, 0.25, 0.5), "published, grouped by length": facts(1.5, 0.0, 0.4),
            "packed": facts(1.0, 0.0, 0.0), "reference": facts(1.5, 0.1, None),
        },
    }  # fmt: skip


def cells_of(text: str, row: int) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[row].strip("|").split("|")]


def test_the_table_of_steps_holds_paired_ratios_and_shares() -> None:
    from benchmarks.speed import table

    text = table.steps([found(), {"cell": CELL, "error": "out of memory"}])
    rows = {cells_of(text, number)[1]: cells_of(text, number) for number in range(2, 6)}
    assert {row[0] for row in rows.values()} == {"T5-small, dss, cqa, 10, fp32"}
    assert rows["published"][2:5] == ["1", "3", "2.50"]
    assert rows["packed"][2:5] == ["3.00 (2.00-4.00)", "3", "10.00"]
    assert rows["reference"][2:5] == ["2.00 (1.00-4.00)", "3", "5.00"]
    # of other batches than the published way's: all their examples by all their time
    assert rows["published, grouped by length"][2:5] == ["2.00 in all", "3", "5.00"]
    assert [row[5] for row in rows.values()] == ["25/50", "0/40", "0/0", "10/?"]
    # 12 GFLOP of real tokens in 12 s, and in 4 s
    assert rows["published"][6:] == ["1.0", "50", "100"]
    assert rows["packed"][6:] == ["3.0", "150", "150"]
    assert cells_of(text, 6)[2] == "out of memory"
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_padding_and_work_of_measured_steps_follow_from_their_lengths() -> None:
    from benchmarks.speed import flops

    steps = [[([3, 7], [2, 5]), ([4, 4], [1, 1])], [([1], [6])]]
    assert flops.positions(steps, padded=False) == {"encoder": 19, "decoder": 15}
    assert flops.positions(steps, padded=True) == {"encoder": 23, "decoder": 18}


def test_the_table_of_memory_names_whatran_out() -> None:
    from benchmarks.speed import table

    peaks = {"setup": 1000.0, "warm": 1500.0, "steps": 2000.0}

    def of(theirs: dict[str, Any]) -> dict[str, Any]:
        more = {**peaks, "steps": 3000.0}
        return {"cell": CELL, "peaks": {"published": [theirs], "packed": [peaks], "reference": [more]}}

    text = table.memory([of({**peaks, "steps": 5000.0}), of({"error": "out of memory"})])
    row = cells_of(text, 2)
    assert row[1:6] == ["packed", "0.40 (0.40-0.40)", "1", "2.00", "5.00"]
    assert row[6:] == ["0.25 (0.25-0.25)", "1.00", "4.00"]
    assert cells_of(text, 3)[1:6] == ["reference", "0.60 (0.60-0.60)", "1", "3.00", "5.00"]
    assert cells_of(text, 4)[1:6] == ["packed", "not measured", "0", "2.00", "out of memory"]
    held = of({"error": "out of memory", "at_least": 8000.0})
    assert cells_of(table.memory([held]), 2)[1:6] == [
        "packed", "below 0.25", "0", "2.00", "out of memory at 8.00"
    ]  # fmt: skip
    skipped = cells_of(table.memory([{"cell": CELL, "error": "not measured"}]), 2)
    assert skipped[:3] == ["T5-small, dss, cqa, 10, fp32", "", "not measured"]


def test_the_table_of_evaluation_compares_like_with_like() -> None:
    from benchmarks.speed import table

    seconds = {"published": [60.0, 40.0], "published options": [30.0, 20.0], "packed": [20.0, 10.0],
               "packed with options": [30.0, 20.0], "reference": [60.0, 40.0],
               "reference with options": [60.0, 60.0]}  # fmt: skip
    different = {"packed": {"answers": 0, "options": 1}, "reference": {"answers": 2, "options": 3}}
    item = {"cell": CELL, "ends": "never", "seconds": seconds, "examples": 100, "different": different}
    text = table.evaluation([item, {"cell": CELL, "error": "out of memory"}])
    assert cells_of(text, 2)[0] == "T5-small, dss, cqa, 10, fp32, ends never: generation"
    assert cells_of(text, 2)[1:] == ["packed", "3.50 (3.00-4.00)", "2", "6.7", "2.0", "0 of 100"]
    assert cells_of(text, 3)[1:] == ["packed", "3.00 (3.00-3.00)", "2", "4.0", "1.3", "1 of 100"]
    assert cells_of(text, 4)[2] == "2.00 (2.00-2.00)"
    assert cells_of(text, 5)[1:] == ["reference", "1.00 (1.00-1.00)", "2", "2.0", "2.0", "2 of 100"]
    assert cells_of(text, 6)[1:] == ["reference", "1.25 (1.00-1.50)", "2", "1.7", "1.3", "3 of 100"]
    assert cells_of(text, 8)[2] == "out of memory"


def test_the_table_of_dry_runs_says_how_time_grows() -> None:
    from benchmarks.speed import table

    sizes = {
        str(jobs): {"seconds": {"ours": [a], "bare": [b]}, "jobs": {"ours": jobs, "bare": jobs}}
        for jobs, a, b in ((2000, 10.0, 8.0), (10_000, 60.0, 40.0))
    }
    text = table.workflow(sizes)
    assert cells_of(text, 3)[4] == "1.50 (1.50-1.50)"
    assert text.endswith("5.0 times the jobs take 6.00 (ours) and 5.00 (bare) times the time.")


@pytest.mark.slow
def test_all_ways_of_an_evaluation_answer_with_one_student(
    run_of: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from benchmarks.speed import answering
    from benchmarks.speed.students import ENGINES, Cell

    run, saved = run_of("finetune", steps=2), tmp_path / "evaluated"
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(answering.children, "tell", told.append)
    monkeypatch.setattr(
        answering.children, "turns", lambda: iter((answering.GENERATE, answering.SCORE))
    )
    answering._train(run, ENGINES[0], saved, steps=2, ends="never")
    for engine in ENGINES:
        answering._ours(run, engine, saved)
    answering._published(run, Cell("tiny", "finetune", "cqa", 8, "fp32"), saved)
    ready, generated, scored = told[0::3], told[1::3], told[2::3]
    assert all(each == {"ready": True} for each in ready) and len(told) == 9
    assert all(each["seconds"] > 0 for each in (*generated, *scored))
    answers = [each["answers"] for each in generated]
    assert len(answers[0]) == 8 and answers[0] == answers[1]
    assert all(each["chosen"] == [""] * 8 for each in scored), "these data have no options"

"""Calibration against torchmetrics, scikit-learn and sums written out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.evaluation import calibration
from cotdistill.runs.documents import Answer

PAIRS = st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]), st.booleans()),
                 min_size=1, max_size=60)  # fmt: skip


def answers(pairs: list[tuple[float, bool]]) -> list[Answer]:
    return [Answer(str(n), "x", "a", "a", right, sure) for n, (sure, right) in enumerate(pairs)]


def by_hand(pairs: list[tuple[float, bool]], bins: int) -> float:
    total = 0.0
    for number in range(1, bins + 1):
        low, high = (number - 1) / bins, number / bins
        inside = [(c, r) for c, r in pairs if low < c <= high or (number == 1 and c == 0)]
        if inside:
            total += abs(sum(r for _, r in inside) - sum(c for c, _ in inside)) / len(pairs)
    return total


@settings(deadline=None)
@given(PAIRS, st.integers(1, 20))
def test_equal_width_error_is_its_definition(pairs: list[tuple[float, bool]], bins: int):
    found = calibration.measure(answers(pairs), bins)["sequence"]
    assert found["ece_width"] == pytest.approx(by_hand(pairs, bins), abs=1e-9)
    assert found["brier"] == pytest.approx(sum((c - r) ** 2 for c, r in pairs) / len(pairs))
    for rows in (found["reliability"], found["reliability_mass"]):
        assert sum(row["n"] for row in rows) == len(pairs)
        assert all(row["low"] <= row["confidence"] <= row["high"] + 1e-12 for row in rows)
        assert [row["low"] for row in rows] == sorted(row["low"] for row in rows)


@settings(deadline=None)
@given(PAIRS, st.integers(1, 20), st.randoms())
def test_nothing_depends_on_the_order_of_examples(pairs: list[tuple[float, bool]], bins: int, random: Any):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    first, second = (calibration.measure(answers(p), bins)["sequence"] for p in (pairs, shuffled))
    for key in ("ece_width", "ece_mass", "brier", "nll"):
        assert first[key] == pytest.approx(second[key], rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_equal_mass_bins_hold_as_many_examples_each(bins: int, n: int, seed: int):
    random = np.random.default_rng(seed)
    confidence, correct = random.permutation(np.linspace(0, 1, n)), random.random(n) < 0.5
    rows = calibration.reliability(confidence, correct, bins, mass=True)
    counts = [row["n"] for row in rows]
    assert len(rows) == min(bins, n) and max(counts) - min(counts) <= 1
    order = np.argsort(confidence)
    parts = [part for part in np.array_split(order, bins) if len(part)]
    expected = sum(abs(correct[part].sum() - confidence[part].sum()) for part in parts) / n
    assert calibration.ece(confidence, correct, bins, mass=True) == pytest.approx(expected, abs=1e-12)


def test_equal_confidences_share_a_bin():
    rows = calibration.reliability(np.full(10, 0.4), np.arange(10) < 5, 4, mass=True)
    assert rows == [{"low": 0.0, "high": 0.4, "n": 10, "confidence": pytest.approx(0.4), "accuracy": 0.5}]


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_errors_are_those_of_torchmetrics(bins: int):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    random = np.random.default_rng(3)
    logits = torch.tensor(random.normal(size=(500, 4)) * 2)
    gold = torch.tensor(random.integers(0, 4, 500))
    probabilities = logits.softmax(-1).numpy()
    made = [Answer(str(n), "x", "abcd"[int(gold[n])], "a", True, 0.5, list("abcd"), row.tolist())
            for n, row in enumerate(probabilities)]  # fmt: skip
    found = calibration.measure(made, bins)["options"]
    wanted = functional.multiclass_calibration_error(logits, gold, num_classes=4, n_bins=bins, norm="l1")
    assert found["ece_width"] == pytest.approx(float(wanted), abs=1e-6)
    accuracy = functional.multiclass_accuracy(logits, gold, num_classes=4, average="micro")
    assert found["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    assert found["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, gold)), rel=1e-9)
    one_hot = np.eye(4)[gold.numpy()]
    assert found["brier"] == pytest.approx(float(((probabilities - one_hot) ** 2).sum(1).mean()), rel=1e-9)
    assert found["mean_confidence"] == pytest.approx(float(probabilities.max(1).mean()), rel=1e-9)


def test_binary_scores_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(5)
    confidence = random.random(300)
    correct = random.random(300) < confidence
    found = calibration.measure(answers(list(zip(confidence, correct, strict=True))), 10)["sequence"]
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(correct, confidence), rel=1e-12)
    assert found["nll"] == pytest.approx(metrics.log_loss(correct, confidence), rel=1e-12)


def test_what_could_not_happen_and_did_costs_a_finite_amount():
    found = calibration.nll(np.array([0.0, 1.0, 0.0, 1.0]), np.array([True, False, False, True]))
    assert found.tolist() == pytest.approx([-math.log(np.finfo(float).tiny), 24 * math.log(2), 0, 0])
    sure = [Answer("1", "x", "a", "b", False, 1.0, ["a", "b"], [0.0, 1.0])]
    options = calibration.measure(sure, 10)["options"]
    assert options["brier"] == 2 and options["nll"] == pytest.approx(708.396, abs=1e-3)


def test_a_calibrated_student_has_a_small_error_and_an_overconfident_one_the_difference():
    random = np.random.default_rng(11)
    confidence = random.random(200_000)
    right = random.random(200_000)
    assert calibration.ece(confidence, right < confidence, 10) < 0.01
    assert calibration.ece(confidence, right < confidence, 10, mass=True) < 0.01
    assert calibration.ece(np.full(1000, 0.9), np.arange(1000) < 600, 10) == pytest.approx(0.3)


def test_options_are_measured_only_where_all_have_scores():
    scored = Answer("1", "x", "a", "a", True, 0.5, ["a", "b"], [0.7, 0.3])
    assert set(calibration.measure([scored], 10)) == {"sequence", "options"}
    open_set = Answer("2", "x", "a", "a", True, 0.5)
    assert set(calibration.measure([scored, open_set], 10)) == {"sequence"}
    nothing = calibration.measure([], 10)
    assert set(nothing) == {"sequence"}
    assert nothing["sequence"]["n"] == 0 and nothing["sequence"]["ece_width"] is None

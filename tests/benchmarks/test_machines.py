"""What the comparison of two machines says of runs that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.machines import Trained, compare, list_methods


def make(losses: list[float], right: int, weights: list[float]) -> Trained:
    correct = [number < right for number in range(10)]
    return Trained(losses, correct, ["a" if each else "b" for each in correct], np.array(weights))


def test_runs_that_are_the_same_are_nothing_apart():
    runs = [make([3.0] * 12, 6, [3.0, 4.0]), make([2.0] * 12, 8, [1.0, 0.0])]
    found = compare(runs, runs)
    assert found["first_step"] == [None, None] and found["loss_apart"] == {1: 0, 10: 0}
    assert (found["weights_apart"], found["predictions_apart"], found["change_by_seed"]) == (
        0,
        [0, 0],
        [0, 0],
    )
    assert (found["n"], found["mean"]) == (2, 70.0) and found["sd"] == pytest.approx(14.14)


def test_what_differs_is_counted():
    first = [make([2.0, 2.0, 2.0], 6, [3.0, 4.0])]
    found = compare([make([2.0, 2.5, 2.0], 7, [3.0, 5.0])], first)
    assert found["first_step"] == [2] and found["loss_apart"] == {1: 0}
    assert found["weights_apart"] == pytest.approx(0.2) and found["predictions_apart"] == [10]
    assert found["accuracies"] == [70] and found["change_by_seed"] == [10] and found["sd"] is None


def test_the_demo_has_the_methods():
    assert {"dss", "finetune"} <= set(list_methods())

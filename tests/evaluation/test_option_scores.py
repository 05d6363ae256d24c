"""Options chosen by summed and by mean log-likelihoods, against ten lines of NumPy and SciPy's softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from cotdistill.evaluation import calibration, option_scores
from cotdistill.runs.documents import Answer

OPTION = st.tuples(st.floats(-300, 0), st.integers(1, 12))
ROW = st.tuples(st.lists(OPTION, min_size=2, max_size=6), st.integers(0, 5))


def make(options: list[tuple[float, int]], gold: int) -> Answer:
    """An answer with options `0`, `1`, ... of these log-likelihoods and numbers of tokens."""
    sums, tokens = [total for total, _ in options], [n for _, n in options]
    names = [str(place) for place in range(len(options))]
    return Answer("a", "x", str(gold % len(options)), "0", True, 0.5, names, [], sums, tokens)


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20))
def test_choices_are_those_of_numpy(rows: list[Any]):
    answers = [make(*row) for row in rows]
    found = option_scores.measure(answers)
    unequal = [answer for answer in answers if len(set(answer.option_tokens)) > 1]
    for kind in ("sum", "mean"):
        right, short = [], []
        for answer in answers:
            sums, tokens = np.array(answer.option_log_likelihoods), np.array(answer.option_tokens)
            best = int(np.argmax(sums if kind == "sum" else sums / tokens))
            right.append(str(best) == answer.gold)
            if answer in unequal:
                short.append(tokens[best] == tokens.min())
        assert found[kind]["accuracy"] == pytest.approx(np.mean(right))
        assert (found[kind]["n"], found[kind]["n_unequal"]) == (len(answers), len(unequal))
        assert found[kind]["shortest"] == (pytest.approx(np.mean(short)) if short else None)
    gold = [a.option_tokens[int(a.gold)] == min(a.option_tokens) for a in unequal]
    assert found["gold"]["shortest"] == (pytest.approx(np.mean(gold)) if gold else None)


@settings(deadline=None)
@given(st.lists(OPTION, min_size=1, max_size=6), st.sampled_from(["sum", "mean"]))
def test_probabilities_are_the_softmax_of_the_score(options: list[tuple[float, int]], kind: Any):
    (answer,) = option_scores.add_probabilities([make(options, 0)], kind)
    score = [total / (n if kind == "mean" else 1) for total, n in options]
    assert answer.option_probabilities == pytest.approx(list(softmax(score)), rel=1e-9, abs=1e-300)
    assert math.fsum(answer.option_probabilities) == pytest.approx(1)


@settings(deadline=None)
@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.integers(2, 12), st.integers(0, 5))
def test_options_of_one_length_are_chosen_alike_and_the_mean_is_a_temperature(
    sums: list[float], tokens: int, gold: int
):
    answer = make([(total, tokens) for total in sums], gold)
    found = option_scores.measure([answer])
    # dividing may make two neighbouring numbers one: then the first of these equals is chosen
    if len({total / tokens for total in sums}) == len(set(sums)):
        assert found["sum"]["accuracy"] == found["mean"]["accuracy"]
    assert found["sum"]["shortest"] is None and found["gold"]["n_unequal"] == 0
    (summed,) = option_scores.add_probabilities([answer], "sum")
    (mean,) = option_scores.add_probabilities([answer], "mean")
    assert max(mean.option_probabilities) <= max(summed.option_probabilities) + 1e-12, "never sharper"


@settings(deadline=None)
@given(st.lists(OPTION, min_size=2, max_size=6), st.floats(-5, 5))
def test_a_constant_moves_what_each_score_says_it_does(options: list[tuple[float, int]], constant: float):
    """The sum does not see a constant of the whole text, the mean none of each token; neither the other's."""
    texts = [(total + constant, n) for total, n in options]
    tokens = [(total + constant * n, n) for total, n in options]
    for kind, moved in (("sum", texts), ("mean", tokens)):
        (before,), (after,) = (option_scores.add_probabilities([make(o, 0)], kind) for o in (options, moved))
        assert after.option_probabilities == pytest.approx(before.option_probabilities, rel=1e-6, abs=1e-9)


def test_a_student_that_knows_nothing_chooses_the_shortest_by_the_sum_and_any_by_the_mean():
    """All tokens are equally likely to it: the sum sees length alone, the mean sees nothing."""
    draw = np.random.default_rng(0)
    answers = []
    for _ in range(2000):
        tokens = draw.integers(2, 7, 5)
        sums = -tokens * (math.log(400) + draw.normal(0, 0.1, 5))
        options = list(zip(sums.tolist(), tokens.tolist(), strict=True))
        answers.append(make(options, int(draw.integers(5))))
    found = option_scores.measure(answers)
    assert found["sum"]["shortest"] > 0.99
    assert found["mean"]["shortest"] == pytest.approx(found["gold"]["shortest"], abs=0.05)
    assert found["sum"]["accuracy"] == pytest.approx(0.2, abs=0.04)


def test_what_is_calibrated_is_named_by_its_score():
    answers = [make([(-1.0, 1), (-1.2, 3), (-9.0, 2)], 1)]
    by_sum, by_mean = (
        calibration.measure(option_scores.add_probabilities(answers, kind), 10, kind)
        for kind in option_scores.KINDS
    )
    assert set(by_sum) == {"sequence", "options"} and set(by_mean) == {"sequence", "options_mean"}
    assert by_sum["options"]["accuracy"] == 0 and by_mean["options_mean"]["accuracy"] == 1
    weights = np.exp([-1.0, -0.4, -4.5])
    assert by_mean["options_mean"]["nll"] == pytest.approx(-math.log(weights[1] / weights.sum()))


def test_nothing_is_measured_unless_all_have_options():
    scored, open_set = make([(-1.0, 1), (-2.0, 2)], 0), Answer("b", "x", "a", "a", True, 0.5)
    assert option_scores.measure([]) == option_scores.measure([scored, open_set]) == {}
    assert option_scores.add_probabilities([open_set], "mean") == [open_set]
    assert option_scores.normalise([-2000.0, -2000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])


def test_a_gold_label_that_is_no_option_is_never_right():
    answer = Answer("a", "x", "9", "0", False, 0.5, ["0", "1"], [], [-1.0, -2.0], [1, 2])
    found = option_scores.measure([answer])
    assert found["sum"]["accuracy"] == 0 and found["gold"]["shortest"] == 0

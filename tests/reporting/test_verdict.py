"""The generated words: each answer, their grammar for one and for many, and what they must not claim."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from cotdistill.analysis.evidence import EVIDENCE_COLUMNS, WHOLE
from cotdistill.analysis.overall import OVERALL_COLUMNS
from cotdistill.analysis.verdict import Verdict, reach_verdict, to_markdown, to_text


def row(decision: str = "no evidence", difference: float = 0.01, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        **{"dataset": "demo", "student": "tiny", "labels": "gold", "fraction": 1.0, "method": "mi-paper"},
        **{"objective": "mi", "proposed": True, "baseline": "dss", "n_seeds": 5, "seeds": [0, 1, 2, 3, 4]},
        **{
            "missing": [],
            "unpaired": [],
            "n_test": 200,
            "n_groups": 200,
            "effective_groups": 200.0,
            "accuracy": 0.7,
            "accuracy_baseline": 0.69,
        },
        **{"difference": difference, "low": difference - 0.02, "high": difference + 0.02, "p": 0.3},
        **{"p_holm": 0.3, "n_comparisons": 1, "p_permutation": 0.3, "p_permutation_least": 0.0625},
        **{"p_mcnemar": [0.5] * 5, "detectable_low": 0.03, "detectable_high": 0.09, "relevant": 0.02},
        **{"seeds_needed_low": 12, "seeds_needed_high": 40, "two_groups": [], "collapsed": []},
        "decision": decision,
    }
    return values | changes


def made(*rows: dict[str, Any], overall: list[dict[str, Any]] | None = None) -> Verdict:
    frame = pd.DataFrame(rows, columns=EVIDENCE_COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))
    return reach_verdict(frame, pd.DataFrame(overall or [], columns=OVERALL_COLUMNS), "demo", "dss")


BETTER = row("better", 0.04, p_holm=0.01)
WORSE = row("worse", -0.04, p_holm=0.0001)
ONE_SEED = row("unknown", 0.04, n_seeds=1, seeds=[0], p_holm=math.nan, p_mcnemar=[0.02])


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([BETTER], "Yes: better by 4.0 points on demo (95% interval +2.0 to +6.0, 5 seeds)."),
        ([WORSE], "Worse: worse by 4.0 points on demo (95% interval -6.0 to -2.0, 5 seeds)."),
        ([row()], "No evidence: the difference is +1.0 point on demo (95% interval -1.0 to +3.0, 5 seeds)"),
        ([ONE_SEED], "Cannot be told: nowhere do both methods have 5 finished seeds"),
        ([BETTER, row(dataset="svamp")], "Yes in part: better by 4.0 points on demo"),
        ([WORSE, row(dataset="svamp")], "Worse in part: worse by"),
        ([BETTER, {**ONE_SEED, "dataset": "svamp"}], "Yes in part: better by"),
        ([BETTER, {**WORSE, "dataset": "svamp"}], "Mixed: better by 4.0 points on demo"),
        ([row(dataset=name) for name in "abc"], "No evidence: in none of 3 comparisons can"),
    ],
)
def test_the_headline_answers_the_question(rows: list[dict[str, Any]], answer: str) -> None:
    headline = made(*rows).headline
    assert headline.startswith(f"Is mi-paper more accurate than dss? {answer}")
    assert headline.endswith(".")


def test_several_methods_each_have_their_answer() -> None:
    found = made(BETTER, row(method="mi-released"), row("worse", -0.2, method="finetune", proposed=False))
    assert found.headline.startswith("Is mi-paper or mi-released more accurate than dss? Yes for mi-paper: ")
    assert "No evidence for mi-released: " in found.headline and "finetune" not in found.headline
    assert (
        "For orientation, against dss: finetune -20.0 points (-22.0 to -18.0; worse)." in found.paragraphs[0]
    )
    assert "over methods, datasets and settings" in found.rule


def test_without_a_proposed_method_all_are_asked_about() -> None:
    headline = made(row(method="finetune", proposed=False)).headline
    assert headline.startswith("Is finetune more accurate than dss? No evidence")
    assert made().headline == "Cannot be told: there is no method to compare with dss."


def test_a_paragraph_says_how_much_how_sure_and_what_could_be_seen() -> None:
    (paragraph,) = made(row()).paragraphs
    assert paragraph.startswith("demo (200 test examples): No evidence that mi-paper and dss differ: ")
    for part in (
        "70.0% against 69.0%, +1.0 point, 95% interval -1.0 to +3.0, corrected p = 0.3, 5 seeds.",
        "The data exclude a gain above 3.0 and a loss above 1.0 points.",
        "finds a true difference of 3.0 to 9.0 points in 4 of 5 repetitions (a range, as 5 seeds hardly",
        "To find a true difference of 2.0 points as often takes 12 to 40 seeds.",
    ):
        assert part in paragraph


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        ((pd.NA, pd.NA), "takes more than 1000 seeds, or more test examples than 200."),
        ((7, pd.NA), "takes at least 7 seeds, and perhaps more than 1000."),
        ((7, 7), "takes 7 seeds."),
    ],
)
def test_how_many_seeds_a_difference_needs(needed: tuple[Any, Any], words: str) -> None:
    (paragraph,) = made(row(seeds_needed_low=needed[0], seeds_needed_high=needed[1])).paragraphs
    assert f"To find a true difference of 2.0 points as often {words}" in paragraph
    assert "would settle" not in paragraph


def test_few_seeds_decide_nothing_and_make_no_headline() -> None:
    two = made(row("unknown", 0.04, n_seeds=2, seeds=[0, 1], p_holm=math.nan))
    assert "cannot be told from 2 seeds" in two.paragraphs[0] and "at least 3" in two.paragraphs[0]
    three = made({**BETTER, "n_seeds": 3, "seeds": [0, 1, 2]})
    assert "mi-paper is better than dss" in three.paragraphs[0]
    assert "Cannot be told: nowhere do both methods have 5 finished seeds" in three.headline
    assert "Yes in part" in made(BETTER, {**BETTER, "dataset": "svamp", "n_seeds": 3}).headline


def test_two_groups_of_seeds_are_said_beside_the_interval() -> None:
    words = "dss (50.0, 52.0, 54.0 and 74.0, 78.0%)"
    (paragraph,) = made(row(two_groups=[words])).paragraphs
    assert f"fall into two groups: {words}." in paragraph


def test_what_correction_takes_away_is_explained() -> None:
    found = made(row(difference=0.03, n_comparisons=4, p_holm=0.12))
    assert "leaves out 0, but not after correction for 4 comparisons." in found.paragraphs[0]
    assert "which chance can explain, after correction for 4 comparisons" in found.headline


def test_one_seed_is_never_evidence() -> None:
    found = made(ONE_SEED)
    assert "better" not in found.headline + found.paragraphs[0]
    assert "McNemar's p = 0.02" in found.paragraphs[0] and "how much another seed" in found.paragraphs[0]
    assert any("variation between seeds is unknown" in limit for limit in found.limits)


def test_identical_answers_are_said_to_be_so() -> None:
    (paragraph,) = made(
        row(difference=0.0, low=0.0, high=0.0, p_holm=1.0, detectable_low=math.nan, detectable_high=math.nan)
    ).paragraphs
    assert "right on the very same examples" in paragraph and "nan" not in paragraph


def test_a_design_that_could_not_have_seen_anything() -> None:
    assert (
        "too small to find any difference" in made(row(detectable_low=1.4, detectable_high=2.0)).paragraphs[0]
    )


def test_missing_runs_are_named_once() -> None:
    gone = "demo/tiny/dss/gold/1/3 (not finished)"
    found = made(row(missing=[gone]), row(method="mi-released", missing=[gone]))
    assert f"1 run missing: {gone}." in found.limits
    two = made(row(missing=[gone, "demo/tiny/mi-paper/gold/1/4 (not finished)"])).limits
    assert two[0].startswith("2 runs missing: ")
    nothing = made(row("unknown", n_seeds=0, missing=[gone], n_test=pd.NA, n_groups=pd.NA)).paragraphs[0]
    assert nothing == "demo: mi-paper cannot be compared with dss: no seed is finished for both."


def test_limits_of_the_design() -> None:
    limits = " ".join(made(row(n_seeds=2, n_test=40, n_groups=40, p_permutation_least=0.5)).limits)
    assert "2 seeds and 40 test examples" in limits
    assert "cannot be below 0.5 with 2 seeds" in limits
    assert "No overall result" in limits


def test_few_groups_of_test_examples_are_said_and_their_power_is_not() -> None:
    few = row(n_groups=135, effective_groups=2.1, detectable_low=math.nan, detectable_high=math.nan)
    found = made(few | {"seeds_needed_low": pd.NA, "seeds_needed_high": pd.NA})
    assert "This design finds" not in found.paragraphs[0] and "as often takes" not in found.paragraphs[0]
    assert any("fewer than 20 groups of one size (2 on demo)" in limit for limit in found.limits)
    assert not any("groups of one size" in limit for limit in made(row()).limits)


def test_seeds_of_one_kind_are_an_assumption_of_few_seeds() -> None:
    said = "take all seeds of a method to be of one kind"
    assert any(said in limit and "5 seeds may show one kind alone" in limit for limit in made(row()).limits)
    for n in (2, 20):  # two seeds are not simulated, and decide nothing
        assert not any(said in limit for limit in made(row(n_seeds=n)).limits)


def test_a_mean_over_datasets_of_few_seeds_is_not_sure() -> None:
    overall = {"method": "mi-paper", "datasets": ["a", "b"], "left_out": [], "differences": [0.1, 0.1]}
    overall |= {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.04, "baseline": "dss"}
    overall |= {"probability_of_improvement": 0.8, "improvement_low": 0.6, "improvement_high": 1.0}
    for n, told in ((2, False), (3, True), (5, False)):
        limits = made(row(n_seeds=n), row(dataset="b", n_seeds=n), overall=[overall]).limits
        assert any("interval of the mean over datasets" in limit for limit in limits) == told
        assert any("keeps the test examples fixed" in limit for limit in limits)
    alone = " ".join(made(row(n_seeds=3)).limits)
    assert "interval of the mean over datasets" not in alone and "test examples fixed" not in alone


def test_settings_are_named_where_they_vary() -> None:
    found = made(row(), row(fraction=0.5))
    assert [paragraph.split(" (2")[0] for paragraph in found.paragraphs] == [
        "demo (100% of the training data)",
        "demo (50% of the training data)",
    ]


def test_overall_is_told_with_what_it_is_not() -> None:
    shared = {"student": "tiny", "labels": "gold", "fraction": 1.0, "baseline": "dss", "n_datasets": 2}
    shared |= {"datasets": ["cqa", "svamp"], "left_out": ["esnli"], "n_runs": 10}
    mine = {"method": "mi-paper", "difference": 0.02, "low": 0.001, "high": 0.04, "p": 0.04}
    mine |= {"differences": [0.06, -0.02]}
    mine |= {"probability_of_improvement": 0.8, "improvement_low": 0.6, "improvement_high": 1.0}
    found = made(row(), overall=[{**shared, **mine}])
    assert found.paragraphs[-1] == (
        "Over cqa and svamp together: mi-paper against dss +2.0 points in the mean, 95% interval +0.1 to "
        "+4.0, p = 0.04 (not corrected, no part of the rule); by dataset cqa +6.0 points and svamp -2.0 "
        "points; worst on svamp (-2.0 points). A run of mi-paper beats one of dss with probability 0.80 "
        "(95% interval 0.60 to 1.00). Left out: esnli."
    )
    assert not any("No overall result" in limit for limit in found.limits)


def test_a_bound_next_to_zero_keeps_its_sign() -> None:
    assert "95% interval +0.04 to +7.4" in made(row("better", 0.037, low=0.0004, high=0.074)).headline


def test_text_is_wrapped_and_markdown_holds_the_same_words() -> None:
    found = made(BETTER, row(method="mi-released", missing=["demo/tiny/mi-released/gold/1/4 (not finished)"]))
    plain, marked = to_text(found), to_markdown(found)
    assert all(len(line) <= 88 for line in plain.splitlines())
    assert "mi-\n" not in plain and plain.endswith("\n")
    assert marked.startswith("## Verdict\n\n**Is mi-paper or mi-released")
    for part in (found.headline, *found.paragraphs, *found.limits, found.rule):
        assert part in marked and " ".join(part.split()) in " ".join(plain.split())


def test_collapsed_runs_are_counted_beside_the_interval() -> None:
    found = made(row(collapsed=["2 of 5 of mi-paper", "1 of 5 of dss"]), row("better", 0.04, dataset="svamp"))
    sentence = (
        "Collapsed runs, which give one answer to nearly all of test: 2 of 5 of mi-paper and 1 of 5 of dss."
    )
    assert sentence in found.paragraphs[0]
    assert "ollapsed" not in found.paragraphs[1]

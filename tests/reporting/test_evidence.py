"""Evidence from made-up runs: pairing, what is missing, order, and numbers against SciPy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cotdistill.analysis.evidence import EVIDENCE_COLUMNS, compute_evidence
from cotdistill.analysis.overall import OVERALL_COLUMNS, compute_overall
from cotdistill.analysis.verdict import reach_verdict, to_text
from cotdistill.common.errors import UserError
from cotdistill.config.models import MethodEntry
from cotdistill.methods import METHODS, is_proposed

SETTINGS: dict[str, dict[str, float]] = {
    "dss": {},
    "finetune": {},
    "mi-paper": {"beta": 0.1},
    "mi-off": {"beta": 0.0},
}
Tables = tuple[pd.DataFrame, pd.DataFrame]


def run_id(dataset: str, method: str, seed: int) -> str:
    return f"{dataset}/tiny/{method}/gold/1/{seed}"


def tables(
    gains: dict[str, float],
    datasets: Iterable[str] = ("demo",),
    seeds: Iterable[int] = range(5),
    n_test: int = 150,
    missing: Iterable[str] = (),
) -> Tables:
    """Examples and runs; `gains` shift each method's scores, and the same score gives the same answer."""
    examples, runs = [], []
    for number, dataset in enumerate(datasets):
        difficulty = np.random.default_rng(number).normal(size=n_test)
        for method, gain in gains.items():
            for seed in seeds:
                run = run_id(dataset, method, seed)
                correct = difficulty + np.random.default_rng([number, seed]).normal(size=n_test) + gain > -0.3
                status = "missing" if run in missing else "done"
                row = {"run": run, "dataset": dataset, "student": "tiny", "method": method, "labels": "gold"}
                row |= {"fraction": 1.0, "seed": seed, "status": status, "objective": method.split("-")[0]}
                row |= {"adapter": dataset, "split": "published"}
                entry = MethodEntry(name=method, method=str(row["objective"]), **SETTINGS[method])
                runs.append(row | {"proposed": is_proposed(entry)})
                if status == "done":
                    examples += [
                        {"run": run, "example": str(i), "correct": bool(c)} for i, c in enumerate(correct)
                    ]
    return pd.DataFrame(examples), pd.DataFrame(runs)


def one(frame: pd.DataFrame, method: str, dataset: str = "demo") -> pd.Series:
    found = frame[(frame["method"] == method) & (frame.get("dataset", dataset) == dataset)]
    assert len(found) == 1
    return found.iloc[0]


def test_identical_methods_do_not_differ() -> None:
    row = one(compute_evidence(*tables({"dss": 0, "mi-paper": 0}), "dss"), "mi-paper")
    assert row["difference"] == 0
    assert np.isnan(row["low"]) and np.isnan(row["high"]), "what has no width is no interval"
    assert row["p"] == row["p_holm"] == row["p_permutation"] == 1 and row["p_mcnemar"] == [1] * 5
    assert row["decision"] == "no evidence"


def test_a_large_gain_is_seen_and_its_mirror_too() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 1})
    row = one(compute_evidence(examples, runs, "dss"), "mi-paper")
    mirror = one(compute_evidence(examples, runs, "mi-paper"), "dss")
    correct = examples.assign(method=examples["run"].str.split("/").str[2])
    means = correct.groupby("method")["correct"].mean()
    assert row["difference"] == pytest.approx(means["mi-paper"] - means["dss"]) == -mirror["difference"]
    assert (row["accuracy"], row["accuracy_baseline"]) == pytest.approx((means["mi-paper"], means["dss"]))
    assert (row["decision"], mirror["decision"]) == ("better", "worse")
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert (row["n_seeds"], row["seeds"], row["n_test"]) == (5, [0, 1, 2, 3, 4], 150)
    assert row["p_permutation"] == row["p_permutation_least"] == 0.0625


def test_mcnemar_by_seed_is_a_binomial_test() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.2})
    row = one(compute_evidence(examples, runs, "dss"), "mi-paper")
    by_run = {run: part["correct"].to_numpy() for run, part in examples.groupby("run")}
    for seed, p in zip(row["seeds"], row["p_mcnemar"], strict=True):
        ours, theirs = by_run[run_id("demo", "mi-paper", seed)], by_run[run_id("demo", "dss", seed)]
        wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        assert p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


def test_a_group_that_holds_a_third_of_the_examples_weighs_as_few() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.2})
    numbers = examples["example"].astype(int)
    even = examples.assign(group=(numbers // 5).astype(str))
    uneven = examples.assign(group=np.where(numbers < 50, "one", ""))
    fine, few = (one(compute_evidence(each, runs, "dss"), "mi-paper") for each in (even, uneven))
    assert (fine["n_groups"], few["n_groups"]) == (30, 101)
    assert fine["effective_groups"] == pytest.approx(30) and few["effective_groups"] < 3
    assert fine["detectable_low"] > 0 and np.isnan(few["detectable_low"]) and pd.isna(few["seeds_needed_low"])
    assert few["difference"] == pytest.approx(fine["difference"])


def test_the_order_of_rows_does_not_matter() -> None:
    gains = {"dss": 0, "finetune": -0.3, "mi-paper": 0.3}
    examples, runs = tables(gains, ("a", "b"), range(3), n_test=60)
    mixed = examples.sample(frac=1, random_state=1), runs.sample(frac=1, random_state=2)
    for function in (compute_evidence, compute_overall):
        expected = function(examples, runs, "dss")
        pd.testing.assert_frame_equal(function(*mixed, "dss"), expected)
    found = reach_verdict(compute_evidence(*mixed, "dss"), compute_overall(*mixed, "dss"), "x", "dss")
    expected = compute_evidence(examples, runs, "dss"), compute_overall(examples, runs, "dss")
    assert to_text(found) == to_text(reach_verdict(*expected, "x", "dss"))


def test_another_method_changes_nothing() -> None:
    alone = one(compute_evidence(*tables({"dss": 0, "mi-paper": 0.3}), "dss"), "mi-paper")
    beside = one(compute_evidence(*tables({"finetune": -1, "mi-paper": 0.3, "dss": 0}), "dss"), "mi-paper")
    pd.testing.assert_series_equal(alone, beside, check_names=False)


def test_missing_runs_are_named_and_their_seeds_left_out() -> None:
    gone = [run_id("demo", "dss", 1), run_id("demo", "mi-paper", 3)]
    row = one(compute_evidence(*tables({"dss": 0, "mi-paper": 0.3}, missing=gone), "dss"), "mi-paper")
    assert row["seeds"] == [0, 2, 4]
    assert row["missing"] == [f"{run} (not finished)" for run in gone]


def test_a_finished_run_without_answers_is_named() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.3})
    gone = run_id("demo", "dss", 0)
    row = one(compute_evidence(examples[examples["run"] != gone], runs, "dss"), "mi-paper")
    assert row["missing"] == [f"{gone} (no answers)"] and row["n_seeds"] == 4


def test_runs_pair_only_on_the_same_examples() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.3})
    other = run_id("demo", "dss", 2)
    renamed = examples["example"].where(
        ~((examples["run"] == other) & (examples["example"] == "7")), "another"
    )
    row = one(compute_evidence(examples.assign(example=renamed), runs, "dss"), "mi-paper")
    assert row["seeds"] == [0, 1, 3, 4]
    assert row["unpaired"] == [f"{run_id('demo', 'mi-paper', 2)}: other test examples than {other}"]


def test_seeds_with_other_examples_than_most_are_named() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.3})
    cut = ~(examples["run"].str.endswith("/4") & (examples["example"] == "7"))
    row = one(compute_evidence(examples[cut], runs, "dss"), "mi-paper")
    assert row["seeds"] == [0, 1, 2, 3] and row["n_test"] == 150
    assert row["unpaired"] == [f"{run_id('demo', 'mi-paper', 4)}: other test examples than most seeds"]


def test_an_example_answered_twice_is_refused() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.3})
    with pytest.raises(UserError, match=r"demo/tiny/dss/gold/1/0.*'0' stands twice"):
        compute_evidence(pd.concat([examples, examples.head(1)]), runs, "dss")


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UserError, match="'baseline': method 'nothing' is not in the grid"):
        compute_evidence(*tables({"dss": 0, "mi-paper": 0.3}), "nothing")


def test_one_seed_decides_nothing() -> None:
    row = one(compute_evidence(*tables({"dss": 0, "mi-paper": 2}, seeds=[0]), "dss"), "mi-paper")
    assert row["decision"] == "unknown" and np.isnan(row["p_holm"])
    assert row["low"] > 0 and row["p_mcnemar"][0] < 0.001 and row["detectable_low"] > 0
    assert pd.isna(row["seeds_needed_low"]) and pd.isna(row["seeds_needed_high"])


def test_no_pair_at_all() -> None:
    gone = [run_id("demo", "dss", seed) for seed in range(5)]
    row = one(compute_evidence(*tables({"dss": 0, "mi-paper": 0.3}, missing=gone), "dss"), "mi-paper")
    assert row["decision"] == "unknown" and row["n_seeds"] == 0 and len(row["missing"]) == 5
    assert np.isnan(row["difference"]) and pd.isna(row["n_test"])


def test_no_answers_at_all() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.3})
    assert one(compute_evidence(examples.head(0), runs, "dss"), "mi-paper")["n_seeds"] == 0
    assert compute_overall(examples.head(0), runs, "dss").empty


def test_holm_is_over_the_datasets_of_a_method() -> None:
    gains = {"dss": 0, "mi-paper": 0.15, "finetune": -1}
    found = compute_evidence(*tables(gains, ("a", "b", "c"), range(3), n_test=100), "dss")
    mine = found[found["method"] == "mi-paper"]
    assert set(mine["n_comparisons"]) == {3}
    assert mine["p_holm"].min() == pytest.approx(min(1, 3 * mine["p"].min()))


def test_what_is_proposed() -> None:
    gains = {"dss": 0, "mi-paper": 0.1, "mi-off": 0, "finetune": -1}
    found = compute_evidence(*tables(gains, seeds=range(2), n_test=50), "dss")
    assert dict(zip(found["method"], found["proposed"], strict=True)) == {
        "finetune": False,
        "mi-off": False,
        "mi-paper": True,
    }
    assert list(found.columns) == EVIDENCE_COLUMNS
    published = [name for name in METHODS.names() if not is_proposed(MethodEntry(name=name, method=name))]
    assert published == ["dss", "finetune", "single_task"]


def test_overall_means_the_datasets() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.5}, ("a", "b"), range(3))
    blocks, together = compute_evidence(examples, runs, "dss"), compute_overall(examples, runs, "dss")
    assert list(together.columns) == OVERALL_COLUMNS
    row = one(together, "mi-paper")
    assert row["difference"] == pytest.approx(blocks["difference"].mean())
    assert row["high"] - row["low"] < (blocks["high"] - blocks["low"]).mean()
    assert row["datasets"] == ["a", "b"] and row["n_runs"] == 6
    assert 0.5 < row["improvement_low"] <= row["probability_of_improvement"] <= row["improvement_high"] <= 1
    assert row["differences"] == pytest.approx(list(blocks["difference"]))
    assert set(together["method"]) == {"mi-paper"}


def test_overall_needs_two_datasets_and_names_those_left_out() -> None:
    gains = {"dss": 0, "mi-paper": 0.5}
    assert compute_overall(*tables(gains), "dss").empty
    gone = [run_id("b", "mi-paper", seed) for seed in (0, 1)]
    together = compute_overall(*tables(gains, ("a", "b", "c"), range(3), missing=gone), "dss")
    row = one(together, "mi-paper")
    assert row["datasets"] == ["a", "c"] and row["left_out"] == ["b"]


def test_overall_does_not_take_two_cuts_of_one_dataset_for_two() -> None:
    examples, runs = tables({"dss": 0, "mi-paper": 0.5}, ("a", "a_again", "b"), range(3))
    again = runs["dataset"] == "a_again"
    runs.loc[again, ["adapter", "split"]] = ["a", "group-disjoint"]
    row = one(compute_overall(examples, runs, "dss"), "mi-paper")
    assert row["datasets"] == ["a", "b"] and row["left_out"] == ["a_again"]
    alone = runs["dataset"] != "a"
    row = one(compute_overall(examples, runs[alone], "dss"), "mi-paper")
    assert row["datasets"] == ["a_again", "b"]

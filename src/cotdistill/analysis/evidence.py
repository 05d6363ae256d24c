"""Is the difference real? Each method against the baseline, per dataset and over datasets.

Pure functions of the runs (`results.parquet`) and of what each answered (`examples.parquet`). The order of
their rows does not matter: all is sorted, and random choices depend on names alone.

The decision rule, the same everywhere: a method differs from the baseline where the p-value of the bootstrap
over seeds and test examples, corrected by Holm over all comparisons of that method, is below 0.05. One seed
decides nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cotdistill.analysis import across, crossed, paired, power
from cotdistill.analysis.comparison import BLOCK
from cotdistill.common.errors import UserError
from cotdistill.common.seeds import derive

ALPHA = 0.05
REFERENCES = ("finetune", "single_task", "dss")
"""objectives that are compared with for orientation; the others are the proposed ones"""

COLUMNS = [
    *BLOCK,
    *["method", "objective", "proposed", "baseline", "n_seeds", "seeds", "missing", "unpaired", "n_test"],
    *["accuracy", "accuracy_baseline", "difference", "low", "high", "p", "p_holm", "n_comparisons"],
    *["p_permutation", "p_permutation_least", "p_mcnemar", "detectable", "seeds_needed", "seeds_needed_why"],
    "decision",
]
GROUP = ["student", "labels", "fraction"]
OVERALL_COLUMNS = [
    *[*GROUP, "method", "baseline", "n_datasets", "datasets", "left_out", "n_runs"],
    *["difference", "low", "high", "p"],
    *["probability_of_improvement", "improvement_low", "improvement_high", "iqm", "iqm_low", "iqm_high"],
]

Answers = Mapping[str, "pd.Series[bool]"]
"""run id -> correct, by example id, sorted by it"""


@dataclass(frozen=True)
class Pairs:
    """The runs of a method and of the baseline that can be compared, seed by seed, and those that cannot."""

    seeds: list[int]
    proposed: NDArray[np.bool_]
    baseline: NDArray[np.bool_]
    missing: list[str]
    unpaired: list[str]

    @property
    def differences(self) -> NDArray[np.float64]:
        """Seeds x examples: 1 where only the method is right, -1 where only the baseline is."""
        return self.proposed.astype(np.float64) - self.baseline

    @property
    def n_examples(self) -> int:
        return int(self.proposed.shape[1])


def evidence(examples: pd.DataFrame, runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per dataset, student, labels, fraction and method but the baseline, in sorted order.

    examples: a row per finished run and test example with `run`, `example`, `correct`. runs: the table of
    results, with the missing runs. Two runs of a seed are a pair when they answered the same examples; all
    seeds of a row must share them too.

    Columns (accuracies and differences are fractions in [-1, 1]): `proposed` is False for the objectives of
    REFERENCES and for a mutual information term with weight 0; `n_seeds` pairs, their `seeds`; `missing` and
    `unpaired` are lists of texts that name runs; `difference`, `low`, `high`, `p` as in
    `statistics.crossed.paired_bootstrap` (over examples alone with one seed); `p_holm` over the
    `n_comparisons` of the method with two seeds or more; `p_permutation` over seeds, with the least value it
    can take; `p_mcnemar` a list, by seed; `detectable` with 80% power at 0.05 / n_comparisons (the strictest
    step of Holm's); `seeds_needed` to detect the observed difference so, or NA and `seeds_needed_why`;
    `decision`: 'better', 'worse', 'no evidence' or 'unknown'.

    Raises UserError when the baseline is not among the runs, or a run answered an example twice.
    """
    answers = _answers(examples)
    rows = []
    for key, block in _blocks(runs, baseline):
        for method in sorted(set(block["method"]) - {baseline}):
            pairs = pair(block, method, baseline, answers)
            row = {**key, "method": method, **_kind(block, method)}
            rows.append(row | _row(key, method, baseline, pairs))
    for method in {row["method"] for row in rows}:
        _decide([row for row in rows if row["method"] == method])
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"seeds_needed": "Int64", "n_test": "Int64"})


def _answers(examples: pd.DataFrame) -> Answers:
    found = {}
    for run, part in examples.groupby("run", sort=True):
        by_example = pd.Series(part["correct"].to_numpy(dtype=bool), index=part["example"].astype(str))
        if by_example.index.has_duplicates:
            twice = by_example.index[by_example.index.duplicated()][0]
            raise UserError(f"run '{run}': example '{twice}' stands twice among its answers; expected once")
        found[str(run)] = by_example.sort_index()
    return found


def _blocks(runs: pd.DataFrame, baseline: str) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    if baseline not in set(runs["method"]):
        names = ", ".join(sorted(set(runs["method"])))
        raise UserError(f"'baseline': method '{baseline}' is not in the grid (methods: {names})")
    return [(dict(zip(BLOCK, key, strict=True)), block) for key, block in runs.groupby(BLOCK, sort=True)]


def _kind(block: pd.DataFrame, method: str) -> dict[str, Any]:
    run = block[block["method"] == method].iloc[0]
    settings = json.loads(run["method_settings"]) if isinstance(run["method_settings"], str) else {}
    proposed = run["objective"] not in REFERENCES and settings.get("beta") != 0
    return {"objective": run["objective"], "proposed": proposed}


def pair(block: pd.DataFrame, method: str, baseline: str, answers: Answers) -> Pairs:
    """The pairs of `method` and `baseline` in one block of runs, by seed."""
    done: dict[str, dict[int, str]] = {method: {}, baseline: {}}
    missing, unpaired = [], []
    ordered = block[block["method"].isin([method, baseline])].sort_values(["seed", "method"])
    for run, name, seed, status in zip(
        ordered["run"], ordered["method"], ordered["seed"], ordered["status"], strict=True
    ):
        if status == "done" and run in answers:
            done[name][int(seed)] = run
        else:
            missing.append(f"{run} ({'no answers' if status == 'done' else 'not finished'})")
    alike = {}
    for seed in sorted(done[method].keys() & done[baseline].keys()):
        ours, theirs = answers[done[method][seed]], answers[done[baseline][seed]]
        if ours.index.equals(theirs.index):
            alike[seed] = ours, theirs
        else:
            unpaired.append(f"{done[method][seed]}: other test examples than {done[baseline][seed]}")
    # one matrix needs one set of examples: the one of most seeds, and of the first among equals
    sets = [tuple(ours.index) for ours, _ in alike.values()]
    common = max(sorted(set(sets)), key=sets.count, default=())
    seeds = [seed for seed, (ours, _) in alike.items() if tuple(ours.index) == common]
    unpaired += [
        f"{done[method][seed]}: other test examples than most seeds" for seed in alike if seed not in seeds
    ]
    shape = (len(seeds), len(common))
    sides = [np.array([alike[seed][side] for seed in seeds], dtype=bool).reshape(shape) for side in (0, 1)]
    return Pairs(seeds, sides[0], sides[1], missing, unpaired)


def _row(key: dict[str, Any], method: str, baseline: str, pairs: Pairs) -> dict[str, Any]:
    n, nothing = len(pairs.seeds), math.nan
    row: dict[str, Any] = {"baseline": baseline, "n_seeds": n, "seeds": pairs.seeds}
    row |= {"missing": pairs.missing, "unpaired": pairs.unpaired, "n_test": pairs.n_examples if n else pd.NA}
    row |= dict.fromkeys(("accuracy", "accuracy_baseline", "difference", "low", "high", "p"), nothing)
    row |= dict.fromkeys(("p_holm", "p_permutation", "p_permutation_least", "detectable"), nothing)
    row |= {"p_mcnemar": [], "n_comparisons": 0, "seeds_needed": pd.NA, "decision": "unknown"}
    row |= {"seeds_needed_why": "there are no pairs of finished runs", "components": None}
    if n == 0 or pairs.n_examples == 0:
        return row
    differences = pairs.differences
    row |= {"accuracy": pairs.proposed.mean(), "accuracy_baseline": pairs.baseline.mean()}
    row |= {"difference": float(differences.mean())}
    row["p_mcnemar"] = [
        paired.mcnemar_p(ours, theirs) for ours, theirs in zip(pairs.proposed, pairs.baseline, strict=True)
    ]
    rng = _rng("permutation", key, method, baseline)
    row["p_permutation"] = paired.permutation_p(differences.sum(axis=1), rng)
    row["p_permutation_least"] = paired.least_permutation_p(n)
    row["seeds_needed_why"] = "one test example says nothing about the variation between examples"
    if pairs.n_examples > 1:
        found = crossed.paired_bootstrap(differences, _rng("bootstrap", key, method, baseline))
        row |= {"low": found.low, "high": found.high, "p": found.p}
        row["components"] = crossed.components(differences)
    return row


def _rng(purpose: str, key: dict[str, Any], *names: str) -> np.random.Generator:
    return np.random.default_rng(derive(purpose, **key, names="|".join(names)))


def _decide(rows: list[dict[str, Any]]) -> None:
    """Fill in, for the rows of one method, what depends on how many comparisons there are."""
    tested = [row for row in rows if row["n_seeds"] > 1 and row["components"] is not None]
    corrected = paired.holm([row["p"] for row in tested])
    for row, p in zip(tested, corrected, strict=True):
        row["p_holm"] = p
        direction = "better" if row["difference"] > 0 else "worse"
        row["decision"] = direction if p < ALPHA else "no evidence"
    for row in rows:
        found = row.pop("components")
        if found is None:
            continue
        row["n_comparisons"] = len(tested)
        alpha = ALPHA / max(len(tested), 1)
        row["detectable"] = power.detectable(found, alpha)
        needed, row["seeds_needed_why"] = power.seeds_needed(found, alpha)
        row["seeds_needed"] = pd.NA if needed is None else needed


def overall(examples: pd.DataFrame, runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per student, labels, fraction and method (the baseline too) that has two datasets or more.

    A dataset counts for a method when it has at least two pairs of runs with the baseline; `left_out` names
    the others. Every dataset weighs the same. `difference`, `low`, `high`, `p`: the mean over datasets of the
    difference from the baseline, with the stratified bootstrap over seeds and test examples
    (`statistics.crossed.mean_of`); the datasets themselves are not resampled, so it speaks of these datasets
    alone; p is not corrected. `probability_of_improvement` over the baseline and `iqm`, the interquartile
    mean of the accuracies, as in `statistics.across`, with 95% intervals over the same runs. No row where
    fewer than two datasets can be used. Raises UserError as `evidence`.
    """
    answers = _answers(examples)
    blocks = _blocks(runs, baseline)
    rows = []
    for group in sorted({tuple(key[axis] for axis in GROUP) for key, _ in blocks}):
        mine = [(key, block) for key, block in blocks if tuple(key[axis] for axis in GROUP) == group]
        for method in sorted({name for _, block in mine for name in block["method"]}):
            row = _overall_row(dict(zip(GROUP, group, strict=True)), mine, method, baseline, answers)
            rows += [row] if row["n_datasets"] > 1 else []
    return pd.DataFrame(rows, columns=OVERALL_COLUMNS)


def _overall_row(
    key: dict[str, Any],
    blocks: list[tuple[dict[str, Any], pd.DataFrame]],
    method: str,
    baseline: str,
    answers: Answers,
) -> dict[str, Any]:
    used, left_out = {}, []
    for where, block in blocks:
        pairs = pair(block, method, baseline, answers)
        if len(pairs.seeds) > 1 and pairs.n_examples > 1:
            used[where["dataset"]] = where, pairs
        else:
            left_out.append(where["dataset"])
    row: dict[str, Any] = {**key, "method": method, "baseline": baseline, "n_datasets": len(used)}
    row |= {"datasets": list(used), "left_out": left_out}
    if len(used) < 2:
        return row
    ours = [pairs.proposed.mean(axis=1) for _, pairs in used.values()]
    row |= {"n_runs": sum(map(len, ours)), "iqm": across.interquartile_mean(ours)}
    row["iqm_low"], row["iqm_high"] = across.interquartile_interval(ours, _rng("iqm", key, method, baseline))
    if method == baseline:
        return row
    theirs = [pairs.baseline.mean(axis=1) for _, pairs in used.values()]
    row["probability_of_improvement"] = across.probability_of_improvement(ours, theirs)
    row["improvement_low"], row["improvement_high"] = across.improvement_interval(
        ours, theirs, _rng("improvement", key, method, baseline)
    )
    found = crossed.mean_of(
        [
            (
                float(pairs.differences.mean()),
                crossed.deviations(pairs.differences, _rng("bootstrap", where, method, baseline)),
            )
            for where, pairs in used.values()
        ]
    )
    return row | {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}

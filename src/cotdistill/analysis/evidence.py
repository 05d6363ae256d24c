"""Decide for each method, dataset and setting whether it differs from the baseline.

Pure functions of the runs (`results.parquet`) and of what each answered (`examples.parquet`). The order of
their rows does not matter: all is sorted, and random choices depend on names alone.

The decision rule, the same everywhere: a method differs from the baseline where the p-value of the bootstrap
over seeds and test examples, corrected by Holm, is below 0.05. The correction is over all comparisons that
are spoken of together: those of the proposed methods, over methods, datasets and settings; and those of the
others, which are there for orientation. Fewer than LEAST_SEEDS seeds decide nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from cotdistill.analysis import crossed, paired, power
from cotdistill.analysis.intervals import LEAST_SEEDS, Interval, restrict
from cotdistill.analysis.modes import describe_two_groups
from cotdistill.analysis.pairs import Answers, Pairs, group_answers, make_rng, pair_runs, split_blocks
from cotdistill.tables.columns import get_role

ALPHA = 0.05
LEAST_GROUPS = 20
"""effective groups of test examples below which one group holds so much that intervals cover 98% and more,
and below which the variance between groups is no number that power can be told from (docs/statistics.md)"""


@dataclass(frozen=True)
class Evidence:
    """How one method differs from the baseline in one block of the grid; a row of the table of evidence.

    Accuracies and differences are fractions in [-1, 1]; what is not known is NaN or None.
    """

    dataset: str
    student: str
    labels: str
    fraction: float
    method: str
    objective: str
    proposed: bool
    baseline: str
    n_seeds: int
    """pairs of runs, one a seed"""
    seeds: list[int]
    missing: list[str]
    """runs that have not finished, with the reason"""
    unpaired: list[str]
    """runs that answered other examples than what they are compared with"""
    n_test: int | None
    n_groups: int | None
    """of the test examples: those of a group share a text, and are resampled as one"""
    effective_groups: float
    """how many groups of one size tell as much: degrees of freedom (`crossed.count_freedom`) and 1"""
    accuracy: float
    accuracy_baseline: float
    difference: float
    low: float
    """95% interval and p as in `crossed.paired_bootstrap`; over examples alone with one seed. The interval is
    cut at what is possible, and NaN where all differences are equal, as it has no width then"""
    high: float
    p: float
    p_holm: float
    """corrected over the `n_comparisons` of the same kind, proposed or not, that have LEAST_SEEDS or more"""
    n_comparisons: int
    p_permutation: float
    """over seeds alone"""
    p_permutation_least: float
    """the least value that `p_permutation` can take with so many seeds"""
    p_mcnemar: list[float]
    """by seed, with groups as units"""
    detectable_low: float
    """true difference found with 80% power at 0.05 / n_comparisons, the strictest step of Holm's: a range.
    NaN with fewer than LEAST_GROUPS effective groups: `power` takes the variance between groups for known"""
    detectable_high: float
    relevant: float
    """difference that the config asks about"""
    seeds_needed_low: int | None
    """seeds that detect `relevant` so: a range; None: no number of seeds does, or it is not known"""
    seeds_needed_high: int | None
    two_groups: list[str]
    """those of method and baseline whose seeds fall into two groups, with the groups, in words"""
    collapsed: list[str]
    """those of method and baseline of whose runs some give one answer to nearly all of test, in words"""
    decision: str
    """'better', 'worse', 'no evidence' or 'unknown'"""

    @property
    def n_examples(self) -> int:
        """Test examples that all pairs answered."""
        return self.n_test or 0

    @property
    def cell(self) -> tuple[Any, ...]:
        """The cell of the grid, in the order of `tables.columns.CELL`."""
        return self.dataset, self.student, self.method, self.labels, self.fraction


EVIDENCE_COLUMNS = [field.name for field in fields(Evidence)]
WHOLE = ("seeds_needed_low", "seeds_needed_high", "n_test", "n_groups")
"""columns of whole numbers that may be missing"""


@dataclass(frozen=True)
class _Contrast:
    """One method and the baseline in one block, measured but not yet corrected for other comparisons."""

    block: dict[str, Any]
    method: str
    objective: str
    proposed: bool
    baseline: str
    pairs: Pairs
    interval: crossed.Estimate | None
    """None where there is no pair of runs, or one test example"""
    components: crossed.Components | None
    """likewise"""
    collapsed: list[str]

    @property
    def p(self) -> float:
        """Not corrected; NaN where it cannot be told."""
        return self.interval.p if self.interval else math.nan

    @property
    def tested(self) -> bool:
        """Whether its p counts among the comparisons."""
        return len(self.pairs.seeds) >= LEAST_SEEDS and self.interval is not None


def compute_evidence(
    examples: pd.DataFrame, runs: pd.DataFrame, baseline: str, relevant: float = 0.02
) -> pd.DataFrame:
    """Return a row (see Evidence) per block of the grid and method but the baseline, in sorted order.

    examples: a row per finished run and test example with `run`, `example`, `correct`. runs: the table of
    results, with the missing runs. Two runs of a seed are a pair when they answered the same examples; all
    seeds of a row must share them too. relevant: the difference for which seeds are counted, as a fraction.

    Raises UserError when the baseline is not among the runs, or a run answered an example twice.
    """
    answers = group_answers(examples)
    contrasts = [
        _make_contrast(key, block, method, baseline, answers)
        for key, block in split_blocks(runs, baseline)
        for method in sorted(set(block["method"]) - {baseline})
    ]
    decided: dict[int, Evidence] = {}
    for proposed in (True, False):
        family = {number: each for number, each in enumerate(contrasts) if each.proposed == proposed}
        tested = [number for number, contrast in family.items() if contrast.tested]
        corrected = dict(zip(tested, paired.holm([family[number].p for number in tested]), strict=True))
        for number, contrast in family.items():
            p_holm = corrected.get(number, math.nan)
            decided[number] = _decide(contrast, p_holm, len(tested), relevant)
    rows = [decided[number] for number in range(len(contrasts))]
    frame = pd.DataFrame([asdict(row) for row in rows], columns=EVIDENCE_COLUMNS)
    return frame.astype(dict.fromkeys(WHOLE, "Int64"))


def read_evidence(frame: pd.DataFrame) -> list[Evidence]:
    """Return the rows of the table of evidence."""
    rows = frame.astype(dict.fromkeys(WHOLE, object)).replace({pd.NA: None})
    return [Evidence(**{str(key): value for key, value in row.items()}) for row in rows.to_dict("records")]


def _make_contrast(
    key: dict[str, Any], block: pd.DataFrame, method: str, baseline: str, answers: Answers
) -> _Contrast:
    run = block[block["method"] == method].iloc[0]
    proposed = get_role(method, bool(run["proposed"]), baseline) == "proposed"
    pairs = pair_runs(block, method, baseline, answers)
    interval = components = None
    if pairs.seeds and pairs.n_groups > 1:
        sums, sizes = pairs.units
        rng = make_rng("bootstrap", key, method, baseline)
        interval = crossed.paired_bootstrap(sums, rng, sizes=sizes)
        components = crossed.compute_components(sums, sizes)
    collapsed = [words for name in (method, baseline) if (words := _count_collapsed(block, name))]
    return _Contrast(
        key, method, run["objective"], proposed, baseline, pairs, interval, components, collapsed
    )


def _count_collapsed(block: pd.DataFrame, method: str) -> str:
    """Return how many finished runs of a method have collapsed, in words; an empty string where none has."""
    own = block[(block["method"] == method) & (block["status"] == "done")]
    count = int(own["collapsed"].eq(True).sum()) if "collapsed" in own else 0
    return f"{count} of {len(own)} of {method}" if count else ""


def _decide(contrast: _Contrast, p_holm: float, n_comparisons: int, relevant: float) -> Evidence:
    """Return the row of a contrast, once it is known how many comparisons are made.

    p_holm: NaN for a contrast that is not tested.
    """
    pairs, interval, components = contrast.pairs, contrast.interval, contrast.components
    n, some = len(pairs.seeds), bool(pairs.seeds) and pairs.n_examples > 0
    difference = float(pairs.differences.mean()) if some else math.nan
    detectable = math.nan, math.nan
    needed: tuple[int | None, int | None] = None, None
    effective = math.nan if components is None else components.freedom + 1
    if components is not None and effective >= LEAST_GROUPS:
        alpha = ALPHA / max(n_comparisons, 1)
        detectable = power.detectable_range(components, alpha)
        needed = power.count_seeds_needed(components, relevant, alpha)
    # the interval is shown from one seed on, where it is over test examples alone
    low, high = (interval.low, interval.high) if interval else (math.nan, math.nan)
    shown = restrict(Interval(n, difference, math.nan, low, high), -1, 1, least_seeds=1)
    decision = "unknown"
    if contrast.tested:
        decision = "no evidence" if p_holm >= ALPHA else "better" if difference > 0 else "worse"
    rng = make_rng("permutation", contrast.block, contrast.method, contrast.baseline)
    return Evidence(
        **contrast.block,
        method=contrast.method,
        objective=contrast.objective,
        proposed=contrast.proposed,
        baseline=contrast.baseline,
        n_seeds=n,
        seeds=pairs.seeds,
        missing=pairs.missing,
        unpaired=pairs.unpaired,
        n_test=pairs.n_examples if n else None,
        n_groups=pairs.n_groups if n else None,
        effective_groups=effective,
        accuracy=float(pairs.proposed.mean()) if some else math.nan,
        accuracy_baseline=float(pairs.baseline.mean()) if some else math.nan,
        difference=difference,
        low=shown.low,
        high=shown.high,
        p=contrast.p,
        p_holm=p_holm,
        n_comparisons=n_comparisons if components else 0,
        p_permutation=paired.permutation_p(pairs.differences.sum(axis=1), rng) if some else math.nan,
        p_permutation_least=paired.least_permutation_p(n) if some else math.nan,
        p_mcnemar=[
            paired.mcnemar_p(*sides, pairs.groups)
            for sides in (zip(pairs.proposed, pairs.baseline, strict=True) if some else [])
        ],
        detectable_low=detectable[0],
        detectable_high=detectable[1],
        relevant=relevant,
        seeds_needed_low=needed[0],
        seeds_needed_high=needed[1],
        two_groups=[
            words
            for name, side in ((contrast.method, pairs.proposed), (contrast.baseline, pairs.baseline))
            if some and (words := describe_two_groups(name, side))
        ],
        collapsed=contrast.collapsed,
        decision=decision,
    )

"""Say in plain words whether the proposed methods are better than the baseline, and no more than is known."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cotdistill.analysis.evidence import ALPHA, Evidence, read_evidence
from cotdistill.analysis.intervals import LEAST_SEEDS, is_cut
from cotdistill.analysis.limits import list_limits
from cotdistill.analysis.overall import Overall, read_overall
from cotdistill.analysis.power import MOST_SEEDS
from cotdistill.analysis.words import (
    describe_test,
    format_count,
    format_interval,
    format_p,
    format_percent,
    format_points,
    join_names,
)
from cotdistill.tables.columns import SETTING

HEADLINE_SEEDS = 5
"""pairs of runs from which a difference stands in the headline"""

RULE = (
    f"Rule: two methods differ where the corrected p is below {ALPHA}, with at least {LEAST_SEEDS} seeds; "
    f"the headline speaks of comparisons of at least {HEADLINE_SEEDS}. The p-value and the 95% interval come "
    "from one bootstrap over seeds and test examples, of which those that share a text count as one group; "
    "p is then corrected for all comparisons of the "
    "proposed methods, over methods, datasets and settings (Holm; the others, for orientation, among "
    "themselves). Points are percentage points of test accuracy."
)
LIMITS = "Not measured, or to keep in mind:"
ANSWERS = ("Yes", "Yes in part", "Mixed", "Worse", "Worse in part", "No evidence", "Cannot be told")


@dataclass(frozen=True)
class Verdict:
    """The generated text on one experiment."""

    experiment: str
    headline: str
    """the answer in a sentence or two, which can be read alone"""
    paragraphs: list[str]
    """a paragraph a dataset and setting, then one a method over all datasets"""
    limits: list[str]
    """what was not measured, and what is assumed"""
    rule: str
    """how it was decided"""


def reach_verdict(
    evidence: pd.DataFrame, overall: pd.DataFrame, experiment_name: str, baseline: str,
    about_data: Sequence[str] = (),
) -> Verdict:
    """Return the verdict on the tables that `compute_evidence` and `compute_overall` return.

    The headline speaks of the proposed methods; where there are none, of every method but the baseline.
    about_data: what limits it that the tables of statistics do not tell, see `shared_data`.
    """
    rows = read_evidence(evidence)
    proposed = any(row.proposed for row in rows)
    asked = [row for row in rows if row.proposed or not proposed]
    varying = [axis for axis in SETTING if evidence[axis].nunique() > 1]
    paragraphs = []
    for where in dict.fromkeys(_name_place(row, varying) for row in rows):
        full, others = (
            [row for row in group if _name_place(row, varying) == where]
            for group in (asked, [row for row in rows if proposed and not row.proposed])
        )
        paragraphs.append(_write_paragraph(where, full, others))
    together = [row for row in read_overall(overall) if row.method in {each.method for each in asked}]
    paragraphs += [_describe_overall(row, varying) for row in together]
    return Verdict(
        experiment_name,
        _write_headline(asked, varying, baseline),
        paragraphs,
        [*about_data, *list_limits(rows, asked, bool(together))],
        RULE,
    )


def to_text(verdict: Verdict, width: int = 88) -> str:
    """Return a verdict as plain text for a terminal, in lines of at most `width` characters."""
    # names of methods and runs stay in one piece
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    parts = [f"Verdict on {verdict.experiment}", *map(wrapper.fill, [verdict.headline, *verdict.paragraphs])]
    rule = wrapper.fill(verdict.rule)
    wrapper.initial_indent, wrapper.subsequent_indent = "- ", "  "
    parts += ["\n".join([LIMITS, *map(wrapper.fill, verdict.limits)]), rule]
    return "\n\n".join(parts) + "\n"


def to_markdown(verdict: Verdict) -> str:
    """Return a verdict as Markdown, under a second-level heading."""
    parts = ["## Verdict", f"**{verdict.headline}**", *verdict.paragraphs]
    parts += [LIMITS, "\n".join(f"- {limit}" for limit in verdict.limits)]
    return "\n\n".join([*parts, verdict.rule]) + "\n"


# --- the headline


def _write_headline(asked: list[Evidence], varying: list[str], baseline: str) -> str:
    if not asked:
        return f"Cannot be told: there is no method to compare with {baseline}."
    methods = list(dict.fromkeys(row.method for row in asked))
    groups: dict[str, list[str]] = {}
    for method in methods:
        groups.setdefault(_choose_answer([row for row in asked if row.method == method]), []).append(method)
    sentences = [f"Is {join_names(methods, 'or')} more accurate than {baseline}?"]
    for answer in sorted(groups, key=ANSWERS.index):
        members = groups[answer]
        rows = [row for row in asked if row.method in members]
        detail = _describe_answer(answer, rows, varying, name=len(members) > 1)
        who = "" if len(groups) == 1 else f" for {join_names(members)}"
        sentences.append(f"{answer}{who}: {detail}.")
    return " ".join(sentences)


def _choose_answer(rows: list[Evidence]) -> str:
    """Return one of ANSWERS, for the rows of one method."""
    decisions = {_judge(row) for row in rows}
    if decisions == {"unknown"}:
        return "Cannot be told"
    if {"better", "worse"} <= decisions:
        return "Mixed"
    if "better" in decisions:
        return "Yes" if decisions == {"better"} else "Yes in part"
    if "worse" in decisions:
        return "Worse" if decisions == {"worse"} else "Worse in part"
    return "No evidence"


def _judge(row: Evidence) -> str:
    """Return a row's decision as the headline takes it: 'unknown' with too few seeds."""
    return row.decision if row.n_seeds >= HEADLINE_SEEDS else "unknown"


def _describe_answer(answer: str, rows: list[Evidence], varying: list[str], name: bool) -> str:
    if answer == "Cannot be told":
        return (
            f"nowhere do both methods have {HEADLINE_SEEDS} finished seeds, and fewer cannot tell a method "
            "from luck well enough for a headline"
        )
    known = [row for row in rows if _judge(row) != "unknown"]
    parts = []
    for decision in ("better", "worse"):
        chosen = [row for row in known if row.decision == decision]
        if chosen:
            parts.append(f"{decision} by {_list_differences(chosen, varying, name)}")
    rest = [row for row in known if row.decision == "no evidence"]
    if rest and parts:
        parts.append(f"no evidence on {_list_places(rest, varying)}")
    elif len(rest) > 2:
        parts.append(f"in none of {len(rest)} comparisons can the difference be told from chance")
    elif rest:
        beyond = any(row.low > 0 or row.high < 0 for row in rest)
        after = f", after correction for {_count_comparisons(rest[0])}" if beyond else ""
        differences = _list_differences(rest, varying, name)
        parts.append(f"the difference is {differences}, which chance can explain{after}")
    unknown = [row for row in rows if _judge(row) == "unknown"]
    if unknown:
        parts.append(f"cannot be told on {_list_places(unknown, varying)}")
    return "; ".join(parts)


def _list_differences(rows: list[Evidence], varying: list[str], name: bool) -> str:
    """Return the differences of `rows` in words, the first four of them."""
    shown = []
    for row in rows[:4]:
        who = f" for {row.method}" if name else ""
        bounds = f"{_describe_interval(row)}, {format_count(row.n_seeds, 'seed')}"
        size = format_points(row.difference)
        size = size.lstrip("+-") if row.decision in ("better", "worse") else size
        shown.append(f"{size} on {_name_place(row, varying)}{who} ({bounds})")
    return join_names([*shown, f"{len(rows) - 4} more"] if len(rows) > 4 else shown)


def _list_places(rows: list[Evidence], varying: list[str]) -> str:
    return join_names(list(dict.fromkeys(_name_place(row, varying) for row in rows)))


# --- the paragraphs


def _write_paragraph(where: str, full: list[Evidence], others: list[Evidence]) -> str:
    """Return a paragraph on one block: the methods in question in full, the others in a clause each."""
    sizes = dict.fromkeys(
        describe_test(row.n_examples, row.n_groups) for row in [*full, *others] if row.n_test is not None
    )
    size = f" ({join_names(list(sizes), 'or')})" if sizes else ""
    parts = [_write_sentences(row) for row in full]
    clauses = [
        f"{row.method} {format_points(row.difference)} ({_describe_bounds(row)}; {_shorten_decision(row)})"
        for row in others
        if row.n_seeds > 0
    ]
    if clauses:
        parts.append(f"For orientation, against {others[0].baseline}: {join_names(clauses)}.")
    return f"{where}{size}: " + " ".join(parts or ["nothing to compare."])


def _shorten_decision(row: Evidence) -> str:
    return "too few seeds" if row.decision == "unknown" else row.decision


def _write_sentences(row: Evidence) -> str:
    method, baseline, n = row.method, row.baseline, row.n_seeds
    if n == 0:
        return f"{method} cannot be compared with {baseline}: no seed is finished for both."
    level = f"{format_percent(row.accuracy)}% against {format_percent(row.accuracy_baseline)}%"
    measured = f"{level}, {format_points(row.difference)}, {_describe_interval(row)}"
    if row.decision == "unknown":
        return _describe_few_seeds(row, measured)
    said = {
        "better": f"{method} is better than {baseline}",
        "worse": f"{method} is worse than {baseline}",
        "no evidence": f"no evidence that {method} and {baseline} differ",
    }[row.decision]
    first = f"{said}: {measured}, corrected p {format_p(row.p_holm)}, {format_count(n, 'seed')}."
    sentences = [first[:1].upper() + first[1:] if row.decision == "no evidence" else first]
    if row.difference == 0 and not row.low < row.high:
        return f"{sentences[0]} Both were right on the very same examples, with every seed."
    if row.decision == "no evidence":
        if row.low > 0 or row.high < 0:
            after = f"not after correction for {_count_comparisons(row)}"
            sentences.append(f"The interval leaves out 0, but {after}.")
        sentences += [_describe_excluded(row), _describe_power(row), _describe_seeds_needed(row)]
    else:
        sentences.append(_describe_power(row))
    sentences += [_describe_two_groups(row), _describe_collapsed(row)]
    return " ".join(sentence for sentence in sentences if sentence)


def _describe_few_seeds(row: Evidence, measured: str) -> str:
    method, baseline = row.method, row.baseline
    if row.n_examples < 2:
        return (
            f"{method} against {baseline} cannot be told from {format_count(row.n_examples, 'test example')}."
        )
    if row.n_seeds > 1:
        return (
            f"{method} against {baseline} cannot be told from {row.n_seeds} seeds: {measured}; a decision "
            f"takes at least {LEAST_SEEDS}."
        )
    alone = "" if pd.isna(row.low) else " over the test examples alone"
    return (
        f"{method} against {baseline} cannot be told from one seed: {measured}{alone}, "
        f"McNemar's p {format_p(row.p_mcnemar[0])}. That is about these two trained models; how much "
        "another seed would change it is unknown."
    )


def _describe_excluded(row: Evidence) -> str:
    """Say which true differences the interval leaves out."""
    gain, loss = format_percent(max(row.high, 0.0)), format_percent(max(-row.low, 0.0))
    return f"The data exclude a gain above {gain} and a loss above {loss} points."


def _describe_power(row: Evidence) -> str:
    if pd.isna(row.detectable_low):
        return ""
    if row.detectable_low >= 1:
        return "This design is too small to find any difference in 4 of 5 repetitions."
    low, high = format_percent(row.detectable_low), format_percent(min(row.detectable_high, 1.0))
    size = low if low == high else f"{low} to {high}"
    why = "" if low == high else f" (a range, as {row.n_seeds} seeds hardly tell how much seeds differ)"
    return f"This design finds a true difference of {size} points in 4 of 5 repetitions{why}."


def _describe_seeds_needed(row: Evidence) -> str:
    if pd.isna(row.detectable_low):
        return ""
    size = f"To find a true difference of {format_percent(row.relevant)} points as often takes"
    low, high = row.seeds_needed_low, row.seeds_needed_high
    if low is None:
        return f"{size} more than {MOST_SEEDS} seeds, or more test examples than {row.n_examples}."
    if high is None:
        return f"{size} at least {low} seeds, and perhaps more than {MOST_SEEDS}."
    return f"{size} {low} seeds." if low == high else f"{size} {low} to {high} seeds."


def _describe_two_groups(row: Evidence) -> str:
    if not row.two_groups:
        return ""
    return (
        f"The seeds fall into two groups: {join_names(row.two_groups)}. The mean depends on how many fall "
        "into each, which another experiment may see otherwise: look at the seeds, not at their mean alone."
    )


def _describe_collapsed(row: Evidence) -> str:
    if not row.collapsed:
        return ""
    return f"Collapsed runs, which give one answer to nearly all of test: {join_names(row.collapsed)}."


def _count_comparisons(row: Evidence) -> str:
    return format_count(row.n_comparisons, "comparison")


def _describe_overall(row: Overall, varying: list[str]) -> str:
    where = f" ({_name_setting(row, varying)})" if varying else ""
    left = f" Left out: {join_names(row.left_out)}." if row.left_out else ""
    chance = f"{row.probability_of_improvement:.2f}"
    between = "no interval, as every resample says the same"
    if row.improvement_low < row.improvement_high:
        between = f"95% interval {row.improvement_low:.2f} to {row.improvement_high:.2f}"
    worst, least = row.worst
    each = join_names([
        f"{name} {format_points(difference)}"
        for name, difference in zip(row.datasets, row.differences, strict=True)
    ])  # fmt: skip
    return (
        f"Over {join_names(row.datasets)} together{where}: {row.method} against {row.baseline} "
        f"{format_points(row.difference)} in the mean, {_describe_interval(row)}, "
        f"p {format_p(row.p)} (not corrected, no part of the rule); by dataset {each}; worst on {worst} "
        f"({format_points(least)}). A run of {row.method} beats one of {row.baseline} with probability "
        f"{chance} ({between}).{left}"
    )


# --- words


def _describe_interval(row: Evidence | Overall) -> str:
    """Return the 95% interval of a difference in words, or why there is none."""
    bounds = _describe_bounds(row)
    return bounds if pd.isna(row.low) else f"95% interval {bounds}"


def _describe_bounds(row: Evidence | Overall) -> str:
    if pd.isna(row.low):
        return "no interval, as all differences are equal"
    cut = ", cut at what is possible" if is_cut(row.low, row.high, -1, 1) else ""
    return format_interval(row.low, row.high) + cut


def _name_place(row: Evidence, varying: list[str]) -> str:
    return f"{row.dataset} ({_name_setting(row, varying)})" if varying else str(row.dataset)


def _name_setting(row: Evidence | Overall, varying: list[str]) -> str:
    words = {
        "student": str(row.student),
        "labels": f"{row.labels} labels",
        "fraction": f"{100 * row.fraction:g}% of the training data",
    }
    return ", ".join(words[axis] for axis in varying)

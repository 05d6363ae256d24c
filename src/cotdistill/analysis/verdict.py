"""Is the proposed method better than the baseline? The evidence in plain words, and no more than it says."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cotdistill.analysis.evidence import ALPHA, GROUP
from cotdistill.report.render import percent

LEAST_SEEDS, LEAST_EXAMPLES = 3, 100
"""from here on simulations hold the intervals' coverage"""

RULE = (
    f"Rule: two methods differ where the corrected p is below {ALPHA}. The p-value and the 95% interval come "
    "from one bootstrap over seeds and test examples; p is then corrected for the number of datasets and "
    "settings on which the method is compared (Holm). Points are percentage points of test accuracy."
)
LIMITS = "Not measured, or to keep in mind:"
ANSWERS = ("Yes", "Yes in part", "Mixed", "Worse", "Worse in part", "No evidence", "Cannot be told")


@dataclass(frozen=True)
class Verdict:
    """The generated text. `headline` stands alone; `paragraphs` go dataset by dataset; `limits` say what was
    not measured or not assumed away; `rule` is how it was decided."""

    experiment: str
    headline: str
    paragraphs: list[str]
    limits: list[str]
    rule: str


def verdict(evidence: pd.DataFrame, overall: pd.DataFrame, experiment_name: str, baseline: str) -> Verdict:
    """The verdict on what `cotdistill.analysis.evidence.evidence` and `.overall` return.

    The headline speaks of the proposed methods; where there are none, of every method but the baseline.
    """
    rows = evidence.to_dict("records")
    proposed = any(row["proposed"] for row in rows)
    asked = [row for row in rows if row["proposed"] or not proposed]
    varying = [axis for axis in GROUP if evidence[axis].nunique() > 1]
    paragraphs = []
    for where in dict.fromkeys(_where(row, varying) for row in rows):
        full, others = (
            [row for row in group if _where(row, varying) == where]
            for group in (asked, [row for row in rows if proposed and not row["proposed"]])
        )
        paragraphs.append(_paragraph(where, full, others))
    together = [row for row in overall.to_dict("records") if row["method"] in {a["method"] for a in asked}]
    paragraphs += [_together(row, overall, varying) for row in together]
    return Verdict(
        experiment_name,
        _headline(asked, varying, baseline),
        paragraphs,
        _limits(rows, asked, bool(together)),
        RULE,
    )


def text(verdict: Verdict, width: int = 88) -> str:
    """Plain text for a terminal, wrapped."""
    # names of methods and runs stay in one piece
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    parts = [f"Verdict on {verdict.experiment}", *map(wrapper.fill, [verdict.headline, *verdict.paragraphs])]
    rule = wrapper.fill(verdict.rule)
    wrapper.initial_indent, wrapper.subsequent_indent = "- ", "  "
    parts += ["\n".join([LIMITS, *map(wrapper.fill, verdict.limits)]), rule]
    return "\n\n".join(parts) + "\n"


def markdown(verdict: Verdict) -> str:
    """The same as Markdown, under a second-level heading."""
    parts = ["## Verdict", f"**{verdict.headline}**", *verdict.paragraphs]
    parts += [LIMITS, "\n".join(f"- {limit}" for limit in verdict.limits)]
    return "\n\n".join([*parts, verdict.rule]) + "\n"


# --- the headline


def _headline(asked: list[dict[str, Any]], varying: list[str], baseline: str) -> str:
    if not asked:
        return f"Cannot be told: there is no method to compare with {baseline}."
    methods = list(dict.fromkeys(row["method"] for row in asked))
    groups: dict[str, list[str]] = {}
    for method in methods:
        groups.setdefault(_answer([row for row in asked if row["method"] == method]), []).append(method)
    sentences = [f"Is {_join(methods, 'or')} more accurate than {baseline}?"]
    for answer in sorted(groups, key=ANSWERS.index):
        members = groups[answer]
        rows = [row for row in asked if row["method"] in members]
        detail = _detail(answer, rows, varying, name=len(members) > 1)
        who = "" if len(groups) == 1 else f" for {_join(members)}"
        sentences.append(f"{answer}{who}: {detail}.")
    return " ".join(sentences)


def _answer(rows: list[dict[str, Any]]) -> str:
    """One of ANSWERS, for the rows of one method."""
    decisions = {row["decision"] for row in rows}
    if decisions == {"unknown"}:
        return "Cannot be told"
    if {"better", "worse"} <= decisions:
        return "Mixed"
    if "better" in decisions:
        return "Yes" if decisions == {"better"} else "Yes in part"
    if "worse" in decisions:
        return "Worse" if decisions == {"worse"} else "Worse in part"
    return "No evidence"


def _detail(answer: str, rows: list[dict[str, Any]], varying: list[str], name: bool) -> str:
    if answer == "Cannot be told":
        return "nowhere do both methods have two finished seeds, and one seed cannot tell a method from luck"
    known = [row for row in rows if row["decision"] != "unknown"]
    parts = []
    for decision in ("better", "worse"):
        chosen = [row for row in known if row["decision"] == decision]
        if chosen:
            parts.append(f"{decision} by {_listed(chosen, varying, name)}")
    rest = [row for row in known if row["decision"] == "no evidence"]
    if rest and parts:
        parts.append(f"no evidence on {_places(rest, varying)}")
    elif len(rest) > 2:
        parts.append(f"in none of {len(rest)} comparisons can the difference be told from chance")
    elif rest:
        beyond = any(row["low"] > 0 or row["high"] < 0 for row in rest)
        after = f", after correction for {_compared(rest[0])}" if beyond else ""
        parts.append(f"the difference is {_listed(rest, varying, name)}, which chance can explain{after}")
    unknown = [row for row in rows if row["decision"] == "unknown"]
    if unknown:
        parts.append(f"cannot be told on {_places(unknown, varying)}")
    return "; ".join(parts)


def _listed(rows: list[dict[str, Any]], varying: list[str], name: bool) -> str:
    """The differences of `rows`, the first four of them."""
    shown = []
    for row in rows[:4]:
        who = f" for {row['method']}" if name else ""
        interval = f"95% interval {_interval(row)}, {_count(row['n_seeds'], 'seed')}"
        size = _points(row["difference"])
        size = size.lstrip("+-") if row["decision"] in ("better", "worse") else size
        shown.append(f"{size} on {_where(row, varying)}{who} ({interval})")
    return _join([*shown, f"{len(rows) - 4} more"] if len(rows) > 4 else shown)


def _places(rows: list[dict[str, Any]], varying: list[str]) -> str:
    return _join(list(dict.fromkeys(_where(row, varying) for row in rows)))


# --- the paragraphs


def _paragraph(where: str, full: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    """One dataset and setting: the methods in question in full, the others in a clause each."""
    tests = sorted({int(row["n_test"]) for row in [*full, *others] if not pd.isna(row["n_test"])})
    size = f" ({_join([_count(n, 'test example') for n in tests], 'or')})" if tests else ""
    parts = [_sentences(row) for row in full]
    clauses = [
        f"{row['method']} {_points(row['difference'])} ({_interval(row)}; {_short(row)})"
        for row in others
        if row["n_seeds"] > 0
    ]
    if clauses:
        parts.append(f"For orientation, against {others[0]['baseline']}: {_join(clauses)}.")
    return f"{where}{size}: " + " ".join(parts or ["nothing to compare."])


def _short(row: dict[str, Any]) -> str:
    return "one seed" if row["decision"] == "unknown" else row["decision"]


def _sentences(row: dict[str, Any]) -> str:
    method, baseline, n = row["method"], row["baseline"], row["n_seeds"]
    if n == 0:
        return f"{method} cannot be compared with {baseline}: no seed is finished for both."
    level = f"{percent(row['accuracy'])}% against {percent(row['accuracy_baseline'])}%"
    measured = f"{level}, {_points(row['difference'])}, 95% interval {_interval(row)}"
    if row["decision"] == "unknown":
        return _one_seed(row, measured)
    said = {
        "better": f"{method} is better than {baseline}",
        "worse": f"{method} is worse than {baseline}",
        "no evidence": f"no evidence that {method} and {baseline} differ",
    }[row["decision"]]
    first = f"{said}: {measured}, corrected p {_p(row['p_holm'])}, {_count(n, 'seed')}."
    sentences = [first[:1].upper() + first[1:] if row["decision"] == "no evidence" else first]
    if row["low"] == row["high"] == 0:
        return f"{sentences[0]} Both were right on the very same examples, with every seed."
    if row["decision"] == "no evidence":
        if row["low"] > 0 or row["high"] < 0:
            sentences.append(f"The interval leaves out 0, but not after correction for {_compared(row)}.")
        sentences += [_power(row), _needed(row)]
    else:
        sentences.append(_power(row))
    return " ".join(sentence for sentence in sentences if sentence)


def _one_seed(row: dict[str, Any], measured: str) -> str:
    method, baseline = row["method"], row["baseline"]
    if row["n_seeds"] > 1 or pd.isna(row["low"]):
        return (
            f"{method} against {baseline} cannot be told from {_count(int(row['n_test']), 'test example')}."
        )
    return (
        f"{method} against {baseline} cannot be told from one seed: {measured} over the test examples alone, "
        f"McNemar's p {_p(row['p_mcnemar'][0])}. That is about these two trained models; how much "
        "another seed would change it is unknown."
    )


def _power(row: dict[str, Any]) -> str:
    if pd.isna(row["detectable"]):
        return ""
    if row["detectable"] >= 1:
        return "This design is too small to find any difference in 4 of 5 repetitions."
    size = percent(row["detectable"])
    often = "in 4 of 5 repetitions, smaller ones less often"
    return f"This design finds a true difference of {size} points {often}."


def _needed(row: dict[str, Any]) -> str:
    if pd.isna(row["seeds_needed"]):
        return (
            f"How many seeds would settle the observed difference cannot be said: {row['seeds_needed_why']}."
        )
    if row["seeds_needed"] <= row["n_seeds"]:
        return (
            "The observed difference is at the edge of what these seeds can show: a few more may settle it."
        )
    return (
        f"If the observed difference is the true one, about {int(row['seeds_needed'])} seeds would settle it."
    )


def _compared(row: dict[str, Any]) -> str:
    return _count(row["n_comparisons"], "comparison")


def _together(row: dict[str, Any], overall: pd.DataFrame, varying: list[str]) -> str:
    same = (overall[GROUP] == pd.Series({axis: row[axis] for axis in GROUP})).all(axis=1)
    where = f" ({_setting(row, varying)})" if varying else ""
    baseline = overall[same & (overall["method"] == row["baseline"])].to_dict("records")
    level = f"interquartile mean accuracy {percent(row['iqm'])}%"
    if baseline and baseline[0]["datasets"] == row["datasets"]:
        level += f" against {percent(baseline[0]['iqm'])}%"
    left = f" Left out: {_join(row['left_out'])}." if row["left_out"] else ""
    method = row["method"]
    chance = f"{row['probability_of_improvement']:.2f}"
    between = f"{row['improvement_low']:.2f} to {row['improvement_high']:.2f}"
    return (
        f"Over {_join(row['datasets'])} together{where}: {method} against {row['baseline']} "
        f"{_points(row['difference'])}, 95% interval {_interval(row)}, p {_p(row['p'])} (not corrected, "
        f"no part of the rule). A run of {method} beats one of {row['baseline']} with probability {chance} "
        f"(95% interval {between}); {level}.{left}"
    )


# --- what was not measured


def _limits(rows: list[dict[str, Any]], asked: list[dict[str, Any]], together: bool) -> list[str]:
    limits = []
    for column, what in (("missing", "missing"), ("unpaired", "not comparable")):
        names = list(dict.fromkeys(name for row in rows for name in row[column]))
        if names:
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            limits.append(f"{_count(len(names), 'run')} {what}: {', '.join(names[:20])}{more}.")
    if any(row["n_seeds"] == 1 for row in asked):
        limits.append(
            "Where one seed is finished, the variation between seeds is unknown and nothing is decided."
        )
    if not together:
        limits.append("No overall result: it takes two datasets with at least two seeds of both methods.")
    several = [row for row in asked if row["n_seeds"] > 1]
    few = [row for row in several if row["n_seeds"] < LEAST_SEEDS or row["n_test"] < LEAST_EXAMPLES]
    if few:
        sizes = [f"{row['n_seeds']} seeds and {_count(int(row['n_test']), 'test example')}" for row in few]
        limits.append(
            f"The intervals' coverage was checked by simulation for at least {LEAST_SEEDS} seeds and "
            f"{LEAST_EXAMPLES} test examples; here: {_join(list(dict.fromkeys(sizes)))}."
        )
    if len({row["method"] for row in asked}) > 1:
        limits.append(
            "p is corrected over datasets and settings, not over methods: the more methods are tried, the "
            "likelier is one that looks better by luck."
        )
    floors = sorted({(row["n_seeds"], row["p_permutation_least"]) for row in several if row["n_seeds"] < 6})
    if floors:
        least = _join([f"below {p:.3g} with {n} seeds" for n, p in floors], "or")
        limits.append(f"The permutation test over seeds is no part of the rule: its p cannot be {least}.")
    limits.append(
        "It holds for these datasets, students and settings; seeds and test examples count as random."
    )
    return limits


# --- words


def _where(row: dict[str, Any], varying: list[str]) -> str:
    return f"{row['dataset']} ({_setting(row, varying)})" if varying else str(row["dataset"])


def _setting(row: dict[str, Any], varying: list[str]) -> str:
    words = {
        "student": str(row["student"]),
        "labels": f"{row['labels']} labels",
        "fraction": f"{100 * row['fraction']:g}% of the training data",
    }
    return ", ".join(words[axis] for axis in varying)


def _signed(value: float) -> str:
    """Percent with a sign and one decimal; with more where that would hide that it is not 0."""
    for decimals in (1, 2, 3):
        number = f"{100 * value:+.{decimals}f}"
        if float(number) != 0:
            return number
    return percent(0.0, sign=True)


def _points(value: float) -> str:
    number = _signed(value)
    return f"{number} point" if number in ("+1.0", "-1.0") else f"{number} points"


def _interval(row: dict[str, Any]) -> str:
    return f"{_signed(row['low'])} to {_signed(row['high'])}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _join(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"

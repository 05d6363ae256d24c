"""Render the comparison as Markdown and as a terminal's plain text. Both show percent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cotdistill.analysis.intervals import CUT, CUT_MEANS, LEAST_SEEDS, explain_absence, is_cut
from cotdistill.analysis.reported import Reported, read_protocol, read_reported, read_sources
from cotdistill.analysis.shared_data import list_data_notes
from cotdistill.analysis.words import describe_test, format_count, format_percent
from cotdistill.common.errors import list_some
from cotdistill.common.text_tables import markdown_table, plain_table
from cotdistill.evaluation.variety import COLLAPSED
from cotdistill.report.measures import (
    GROUPS,
    NOT_MEASURED,
    NOT_MEASURED_MEANS,
    PREDICTABILITY,
    PREDICTABILITY_MEANS,
    tabulate_group,
)
from cotdistill.tables.columns import BLOCK

SEEDS_ALONE = "95% over seeds"
"""heading of the intervals of accuracy, which leave the choice of test examples out"""
COLLAPSED_MEANS = f"collapsed: runs that give one answer to {COLLAPSED:.0%} of test or more"
ELSEWHERE = "Reported by others (papers and independent runs; other students or protocol)"
"""heading of what `tabulate_reported` finds"""


@dataclass(frozen=True)
class Section:
    """The cells of one dataset and student: a heading, the column names and one row a cell."""

    dataset: str
    student: str
    facts: str
    header: list[str]
    rows: list[list[str]]
    best: list[int]
    """rows with the highest mean accuracy among those that they are compared with"""

    def is_bold(self, row: int, column: int) -> bool:
        """Return whether a cell is the best accuracy."""
        return row in self.best and self.header[column] == "accuracy %"


def format_mean(mean: float, sd: float, n: int, collapsed: int = 0) -> str:
    """Return `mean ± sd (n=5)`; no sd for one seed and for seeds that are all equal, 'missing' for none.

    collapsed: of the `n` runs, told where there are any.
    """
    if n == 0:
        return "missing"
    spread = "" if n == 1 or sd == 0 else f" ± {format_percent(sd)}"
    told = f", {collapsed} collapsed" if collapsed else ""
    return f"{format_percent(mean)}{spread} (n={n}{told})"


def format_bounds(low: float, high: float, least: float, sign: bool = False) -> str:
    """Return `[low, high]`, marked where it is cut at what is possible, from `least` to 1. Neither is NaN."""
    mark = f" {CUT}" if is_cut(low, high, least, 1) else ""
    return f"[{format_percent(low, sign)}, {format_percent(high, sign)}]{mark}"


def format_seed_interval(row: Any) -> str:
    """Return the interval of the accuracy of one row of the comparison, or why there is none."""
    if row["n_seeds"] == 0:
        return "n/a"
    if math.isnan(row["low"]):
        return explain_absence(row["n_seeds"], row["sd"])
    return format_bounds(row["low"], row["high"], 0)


def format_difference(row: Any) -> str:
    """Return the paired difference of one row of the comparison, in points, with its interval and pairs."""
    if row["method"] == row["baseline"]:
        return "baseline"
    if row["n_pairs"] == 0:
        return "no pairs"
    mean = format_percent(row["difference"], sign=True)
    mark = "*" if row["decision"] in ("better", "worse") else ""
    pairs = format_count(row["n_pairs"], "pair")
    if math.isnan(row["difference_low"]):
        return f"{mean}{mark} ({pairs}, {'all equal' if row['n_test'] > 1 else 'one test example'})"
    interval = format_bounds(row["difference_low"], row["difference_high"], -1, sign=True)
    return f"{mean}{mark} {interval} ({pairs})"


def build_sections(comparison: pd.DataFrame) -> list[Section]:
    """Return a section a dataset and student; labels and fraction are columns where they vary."""
    varying = _find_varying(comparison)
    found = []
    for (dataset, student), part in comparison.groupby(["dataset", "student"], sort=False):
        beside = bool(part["reported"].notna().any())
        header = ["method", *varying, "accuracy %", SEEDS_ALONE]
        header += [f"difference from {part['baseline'].iloc[0]}", "last step %"]
        header += ["reported %"] if beside else []
        rows = []
        for _, row in part.iterrows():
            cells = [row["method"], *[_format_level(row[axis]) for axis in varying]]
            cells.append(format_mean(row["mean"], row["sd"], row["n_seeds"], row["n_collapsed"]))
            cells.append(format_seed_interval(row))
            cells += [format_difference(row), format_percent(row["mean_published"])]
            if beside:
                known = pd.notna(row["reported"])
                cells.append(f"{format_percent(row['reported'])} [{row['reported_source']}]" if known else "")
            rows.append(cells)
        found.append(Section(dataset, student, _describe_part(part, varying), header, rows, _find_best(part)))
    return found


def _find_best(part: pd.DataFrame) -> list[int]:
    highest = part.groupby(["labels", "fraction"])["mean"].transform("max")
    several = part.groupby(["labels", "fraction"])["mean"].transform("count") > 1
    return [place for place, best in enumerate((part["mean"] == highest) & several) if best]


def build_measure_tables(comparison: pd.DataFrame, measures: pd.DataFrame) -> list[tuple[str, Section]]:
    """Return (group, table) for each dataset and student and each group of measures that has values."""
    varying = _find_varying(comparison)
    found = []
    for (dataset, student), part in comparison.groupby(["dataset", "student"], sort=False):
        for group in GROUPS:
            if table := tabulate_group(measures, part, group, varying):
                found.append((group, Section(dataset, student, "", *table, [])))
    return found


def list_measure_notes(tables: Iterable[tuple[str, Section]]) -> list[str]:
    """Return the notes that the tables of measures need: on predictability, and on what was not measured."""
    shown = list(tables)
    notes = [PREDICTABILITY_MEANS] if any(group.startswith(PREDICTABILITY) for group, _ in shown) else []
    if any(NOT_MEASURED in row for _, table in shown for row in table.rows):
        notes.append(f"{NOT_MEASURED_MEANS}.")
    return notes


def _find_varying(comparison: pd.DataFrame) -> list[str]:
    return [axis for axis in ("labels", "fraction") if comparison[axis].nunique() > 1]


def _describe_part(part: pd.DataFrame, varying: list[str]) -> str:
    first = part.iloc[0]
    facts = [] if first["split"] == "published" else [f"{first['split']} split of {first['adapter']}"]
    if "labels" not in varying:
        facts.append(f"{part['labels'].iloc[0]} labels")
    if "fraction" not in varying:
        facts.append(f"{100 * part['fraction'].iloc[0]:g}% of the training data")
    tests = part["n_test"].dropna().unique()
    if len(tests):
        groups = part["n_groups"].dropna().unique()
        count = describe_test(int(tests[0]), int(groups[0]) if len(groups) else None)
        facts.append(f"{count}, one example is {100 / int(tests[0]):.2g} points")
    teacher = part["teacher_accuracy"].dropna()
    if len(teacher):
        facts.append(f"the teacher has {format_percent(teacher.iloc[0])}% on test")
    return "; ".join(facts)


def list_notes(comparison: pd.DataFrame, results: pd.DataFrame) -> list[str]:
    """Return notes for the reader of the numbers: the interval, the protocol, what is missing or mixed."""
    baseline = comparison["baseline"].iloc[0]
    notes = [
        "accuracy: on test, of the checkpoint chosen on validation; mean ± standard deviation over n seeds.",
        f"{SEEDS_ALONE}: Student's t interval of the mean over seeds. It covers the variation between seeds, "
        "not the error of measuring on a finite test set, so the accuracy on all such examples lies outside "
        f"of it more often than in 1 of 20; it takes {LEAST_SEEDS} seeds that are not all equal.",
        f"difference: percentage points from {baseline}, paired by seed and test example, over the seeds "
        "that both have; with a 95% bootstrap interval over seeds and test examples (with one pair, over "
        "test examples alone).",
        *_describe_groups(comparison),
        f"*: differs from {baseline}: the bootstrap's p, corrected by Holm, is below 0.05. The correction is "
        "over all comparisons of the proposed methods, and over those of the others. "
        "Bold: the highest mean accuracy of its block, significant or not.",
        "last step: test accuracy at the last step of training, close to the published protocol.",
    ]
    notes += [f"{CUT_MEANS}."] if has_cut_interval(comparison) else []
    notes += [f"{COLLAPSED_MEANS}."] if has_collapsed(comparison) else []
    if _select_reported(comparison):
        differences = [p for p in read_protocol() if p.dataset in {None, *comparison["adapter"]}]
        notes += [f"protocol, {p.what}: theirs: {p.theirs}; ours: {p.ours}." for p in differences]
        if not all(r.verified for r in _select_reported(comparison)):
            notes.append("reported numbers have not been checked against their sources yet.")
        used = dict.fromkeys(r.source for r in _select_reported(comparison))
        notes += [f"[{source}] {read_sources()[source]}." for source in used]
    return notes + list_data_notes(results) + _name_missing(results) + _name_mixed(results)


def has_collapsed(comparison: pd.DataFrame) -> bool:
    """Return whether any run of the comparison has collapsed, see `evaluation.variety`."""
    return bool((comparison["n_collapsed"] > 0).any())


def has_groups(comparison: pd.DataFrame) -> bool:
    """Return whether some test examples share a text, so that there are fewer groups than examples."""
    return bool((comparison["n_groups"] < comparison["n_test"]).any())


def _describe_groups(comparison: pd.DataFrame) -> list[str]:
    if not has_groups(comparison):
        return []
    return [
        "groups: test examples that share a text, such as a premise or a story, are not independent; the "
        "bootstrap resamples each group as one."
    ]


def has_cut_interval(comparison: pd.DataFrame) -> bool:
    """Return whether any interval of the comparison is cut at what is possible."""
    return any(
        is_cut(row["low"], row["high"], 0, 1) or is_cut(row["difference_low"], row["difference_high"], -1, 1)
        for _, row in comparison.iterrows()
    )


def _name_missing(results: pd.DataFrame) -> list[str]:
    missing = list(results.loc[results["status"] != "done", "run"])
    if not missing:
        return []
    named = list_some(missing, 20)
    return [f"MISSING: {len(missing)} of {len(results)} runs are not in these numbers: {named}."]


def _name_mixed(results: pd.DataFrame) -> list[str]:
    """Return notes on runs that differ in data or code: their difference may not be the method's."""
    done = results[results["status"] == "done"]
    notes = []
    commits = list(dict.fromkeys(done["git_commit"].dropna()))
    if len(commits) > 1:
        notes.append(f"MIXED CODE: the runs come from {len(commits)} git commits: {', '.join(commits)}.")
    pairs = done.groupby([*BLOCK, "seed"], sort=False)
    for column, what in (("data_checksum", "data"), ("n_test", "test sets")):
        kinds = pairs[column].nunique()
        if (kinds > 1).any():
            names = ", ".join(dict.fromkeys(key[0] for key in kinds[kinds > 1].index))
            notes.append(
                f"MIXED DATA: in {names}, methods of one seed saw different {what}; they are no pairs."
            )
    return notes + _name_mixed_machines(done)


def _name_mixed_machines(done: pd.DataFrame) -> list[str]:
    """Return a note where runs are of several CPU models or sets of kernels; none where that is unknown."""
    known = done.dropna(subset=["cpu", "kernels"])
    machines = known["cpu"] + " with kernels " + known["kernels"]
    if machines.nunique() < 2:
        return []
    named = [f"{machine}: {n} runs" for machine, n in machines.value_counts(sort=False).items()]
    sets = machines.groupby([known[axis] for axis in [*BLOCK, "seed"]], sort=False).nunique()
    return [
        f"MIXED MACHINES: the runs come from {machines.nunique()} sets of CPU model and kernels, which round "
        f"differently ({'; '.join(named)}; `hardware` in environment.json says more). In "
        f"{int((sets > 1).sum())} of {len(sets)} repetitions, methods that are compared were trained on "
        "different ones: such pairs share seed and data, but their difference holds that of the machines too."
    ]


def _select_reported(comparison: pd.DataFrame) -> list[Reported]:
    # papers report of published splits
    adapters = set(comparison.loc[comparison["split"] == "published", "adapter"])
    return [r for r in read_reported() if r.dataset in adapters]


def tabulate_reported(comparison: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return (header, rows) of the reported numbers of the grid's datasets that no cell is compared with."""
    keys = ["pretrained", "adapter", "objective", "reported_source"]
    shown = {tuple(row) for row in comparison.loc[comparison["reported"].notna(), keys].to_numpy()}
    known = _select_reported(comparison)
    rest = [r for r in known if (r.student, r.dataset, r.method, r.source) not in shown]
    datasets = [name for name in dict.fromkeys(comparison["adapter"]) if any(r.dataset == name for r in rest)]
    table: dict[tuple[str, ...], dict[str, str]] = {}
    for r in rest:
        table.setdefault((r.student, r.method, r.step, r.source), {})[r.dataset] = r.text
    rows = [
        [*key[:3], *[cells.get(name, "") for name in datasets], f"[{key[3]}]"] for key, cells in table.items()
    ]
    return ["student", "method", "step", *[f"{name} %" for name in datasets], "source"], rows


def render_markdown(
    comparison: pd.DataFrame, results: pd.DataFrame, measures: pd.DataFrame, verdict: str
) -> str:
    """Return the comparison as Markdown whose tables are aligned, so that it reads in a terminal too.

    verdict: Markdown that comes first.
    """
    lines = [f"# {results['experiment'].iloc[0]}: comparison of methods", "", verdict.rstrip(), ""]
    tables = build_measure_tables(comparison, measures)
    for section in build_sections(comparison):
        lines += [f"## {section.dataset}, {section.student}", "", f"{capitalize(section.facts)}.", ""]
        rows = [
            [f"**{cell}**" if section.is_bold(number, column) else cell for column, cell in enumerate(row)]
            for number, row in enumerate(section.rows)
        ]
        lines += [markdown_table(section.header, rows)]
        for group, table in tables:
            if (table.dataset, table.student) == (section.dataset, section.student):
                lines += [f"### {group}", "", markdown_table(table.header, table.rows)]
    header, rows = tabulate_reported(comparison)
    if rows:
        lines += [f"## {ELSEWHERE}", "", markdown_table(header, rows)]
    notes = [*list_notes(comparison, results), *list_measure_notes(tables)]
    lines += ["## Notes", "", *[f"- {note}" for note in notes]]
    return "\n".join(lines) + "\n"


def render_plain(comparison: pd.DataFrame) -> str:
    """Return the comparison for a terminal: a block per dataset and student, a line on what is missing."""
    lines: list[str] = []
    for section in build_sections(comparison):
        lines += [f"{section.dataset}, {section.student} ({section.facts})"]
        lines += [plain_table([section.header, *section.rows], indent="  "), ""]
    lines.append(f"accuracy: mean ± standard deviation over n seeds; {SEEDS_ALONE}: Student's t interval")
    over = "seeds and groups of test examples" if has_groups(comparison) else "seeds and test examples"
    lines.append(f"difference: 95% bootstrap interval over {over}; *: p < 0.05 after Holm")
    lines += [CUT_MEANS] if has_cut_interval(comparison) else []
    lines += [COLLAPSED_MEANS] if has_collapsed(comparison) else []
    missing = int(comparison["n_missing"].sum())
    total = missing + int(comparison["n_seeds"].sum())
    if missing:
        lines.append(f"missing: {missing} of {total} runs are not in these numbers")
    return "\n".join(lines) + "\n"


def _format_level(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def capitalize(text: str) -> str:
    """Return `text` with its first letter as a capital; the rest, such as names, stays as it is."""
    return text[:1].upper() + text[1:]

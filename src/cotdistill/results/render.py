"""The comparison as text: Markdown, a terminal's plain text, and LaTeX. All show percent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cotdistill.results.reported import Reported, protocol_differences, reported, sources

# escaped with a replacement a character, so that no replacement is escaped again
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": "$-$",
}


@dataclass(frozen=True)
class Section:
    """The cells of one dataset and student: a heading, the column names and one row a cell."""

    dataset: str
    student: str
    facts: str
    header: list[str]
    rows: list[list[str]]


def percent(value: float, sign: bool = False) -> str:
    """A fraction as percent with one decimal; 'n/a' for NaN."""
    if pd.isna(value):
        return "n/a"
    # adding 0.0 turns -0.0, which a small negative difference rounds to, into 0.0
    number = round(100 * value, 1) + 0.0
    return f"{number:+.1f}" if sign else f"{number:.1f}"


def mean_text(mean: float, sd: float, n: int) -> str:
    """`mean ± sd (n=5)`; no sd for one seed, 'missing' for none."""
    if n == 0:
        return "missing"
    return f"{percent(mean)} (n=1)" if n == 1 else f"{percent(mean)} ± {percent(sd)} (n={n})"


def interval_text(low: float, high: float, sign: bool = False) -> str:
    """`[low, high]`, or 'n/a' where fewer than two seeds give no interval."""
    return "n/a" if math.isnan(low) else f"[{percent(low, sign)}, {percent(high, sign)}]"


def difference_text(row: Any) -> str:
    """The paired difference of one row of the comparison, in points, with its interval and pairs."""
    if row["method"] == row["baseline"]:
        return "baseline"
    if row["n_pairs"] == 0:
        return "no pairs"
    mean = percent(row["difference"], sign=True)
    if row["n_pairs"] == 1:
        return f"{mean} (1 pair)"
    interval = interval_text(row["difference_low"], row["difference_high"], sign=True)
    return f"{mean} {interval} ({row['n_pairs']} pairs)"


def sections(comparison: pd.DataFrame) -> list[Section]:
    """The comparison cut by dataset and student; labels and fraction are columns where they vary."""
    varying = [axis for axis in ("labels", "fraction") if comparison[axis].nunique() > 1]
    found = []
    for (dataset, student), part in comparison.groupby(["dataset", "student"], sort=False):
        beside = bool(part["reported"].notna().any())
        header = ["method", *varying, "accuracy %", "95% interval"]
        header += [f"difference from {part['baseline'].iloc[0]}", "last step %"]
        header += ["reported %"] if beside else []
        rows = []
        for _, row in part.iterrows():
            cells = [row["method"], *[_value(row[axis]) for axis in varying]]
            cells.append(mean_text(row["mean"], row["sd"], row["n_seeds"]))
            cells.append(interval_text(row["low"], row["high"]))
            cells += [difference_text(row), percent(row["mean_published"])]
            if beside:
                known = pd.notna(row["reported"])
                cells.append(f"{percent(row['reported'])} [{row['reported_source']}]" if known else "")
            rows.append(cells)
        found.append(Section(dataset, student, _facts(part, varying), header, rows))
    return found


def _facts(part: pd.DataFrame, varying: list[str]) -> str:
    facts = []
    if "labels" not in varying:
        facts.append(f"{part['labels'].iloc[0]} labels")
    if "fraction" not in varying:
        facts.append(f"{100 * part['fraction'].iloc[0]:g}% of the training data")
    tests = part["n_test"].dropna().unique()
    if len(tests):
        facts.append(f"{int(tests[0])} test examples, one is {100 / int(tests[0]):.2g} points")
    teacher = part["teacher_accuracy"].dropna()
    if len(teacher):
        facts.append(f"the teacher has {percent(teacher.iloc[0])}% on test")
    return "; ".join(facts)


def footnotes(comparison: pd.DataFrame, results: pd.DataFrame) -> list[str]:
    """What a reader must know beside the numbers: the interval, the protocol, what is missing or mixed."""
    baseline = comparison["baseline"].iloc[0]
    notes = [
        "accuracy: on test, of the checkpoint chosen on validation; mean ± standard deviation over n seeds.",
        "95% interval: Student's t over seeds. It covers the variation between seeds, not the error of "
        "measuring on a finite test set; one seed gives no interval.",
        f"difference: percentage points from {baseline}, paired by seed, over the seeds that both have; "
        "with a 95% t interval.",
        "last step: test accuracy at the last step of training, close to the published protocol.",
    ]
    if _shown_reported(comparison):
        differences = [p for p in protocol_differences() if p.dataset in {None, *comparison["adapter"]}]
        notes += [f"protocol, {p.what}: theirs: {p.theirs}; ours: {p.ours}." for p in differences]
        if not all(r.verified for r in _shown_reported(comparison)):
            notes.append("reported numbers have not been checked against their sources yet.")
        used = dict.fromkeys(r.source for r in _shown_reported(comparison))
        notes += [f"[{source}] {sources()[source]}." for source in used]
    return notes + _missing(results) + _mixed(results)


def _missing(results: pd.DataFrame) -> list[str]:
    missing = list(results.loc[results["status"] != "done", "run"])
    if not missing:
        return []
    more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
    named = ", ".join(missing[:20])
    return [f"MISSING: {len(missing)} of {len(results)} runs are not in these numbers: {named}{more}."]


def _mixed(results: pd.DataFrame) -> list[str]:
    """Runs that should share data or code and do not: a difference between them may not be the method's."""
    done = results[results["status"] == "done"]
    notes = []
    commits = list(dict.fromkeys(done["git_commit"].dropna()))
    if len(commits) > 1:
        notes.append(f"MIXED CODE: the runs come from {len(commits)} git commits: {', '.join(commits)}.")
    pairs = done.groupby(["dataset", "student", "labels", "fraction", "seed"], sort=False)
    for column, what in (("data_checksum", "data"), ("n_test", "test sets")):
        kinds = pairs[column].nunique()
        if (kinds > 1).any():
            names = ", ".join(dict.fromkeys(key[0] for key in kinds[kinds > 1].index))
            notes.append(
                f"MIXED DATA: in {names}, methods of one seed saw different {what}; they are no pairs."
            )
    return notes


def _shown_reported(comparison: pd.DataFrame) -> list[Reported]:
    return [r for r in reported() if r.dataset in set(comparison["adapter"])]


def _others(comparison: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Reported numbers of the grid's datasets that stand beside no cell: (header, rows)."""
    keys = ["pretrained", "adapter", "objective", "reported_source"]
    shown = {tuple(row) for row in comparison.loc[comparison["reported"].notna(), keys].to_numpy()}
    rest = [r for r in _shown_reported(comparison) if (r.student, r.dataset, r.method, r.source) not in shown]
    datasets = [name for name in dict.fromkeys(comparison["adapter"]) if any(r.dataset == name for r in rest)]
    table: dict[tuple[str, ...], dict[str, str]] = {}
    for r in rest:
        table.setdefault((r.student, r.method, r.step, r.source), {})[r.dataset] = r.text
    rows = [
        [*key[:3], *[cells.get(name, "") for name in datasets], f"[{key[3]}]"] for key, cells in table.items()
    ]
    return ["student", "method", "step", *[f"{name} %" for name in datasets], "source"], rows


def markdown(comparison: pd.DataFrame, results: pd.DataFrame) -> str:
    """The comparison as Markdown whose tables are aligned, so that it reads in a terminal too."""
    lines = [f"# {results['experiment'].iloc[0]}: comparison of methods", ""]
    for section in sections(comparison):
        lines += [f"## {section.dataset}, {section.student}", "", f"{_sentence(section.facts)}.", ""]
        lines += [*_pipes(section.header, section.rows), ""]
    header, rows = _others(comparison)
    if rows:
        lines += ["## Reported by the papers (other students, other protocol)", "", *_pipes(header, rows), ""]
    lines += ["## Notes", "", *[f"- {note}" for note in footnotes(comparison, results)]]
    return "\n".join(lines) + "\n"


def plain(comparison: pd.DataFrame) -> str:
    """The comparison for a terminal: a block per dataset and student, and a line on what is missing."""
    lines: list[str] = []
    for section in sections(comparison):
        lines += [f"{section.dataset}, {section.student} ({section.facts})"]
        padded = _padded([section.header, *section.rows])
        lines += ["  " + "  ".join(row).rstrip() for row in padded] + [""]
    lines.append("accuracy: mean ± standard deviation over n seeds; intervals: 95%, Student's t over seeds")
    missing = int(comparison["n_missing"].sum())
    total = missing + int(comparison["n_seeds"].sum())
    if missing:
        lines.append(f"missing: {missing} of {total} runs are not in these numbers")
    return "\n".join(lines) + "\n"


def latex(comparison: pd.DataFrame, results: pd.DataFrame) -> str:
    """The comparison as a LaTeX table environment; needs the packages booktabs and graphicx."""
    parts = sections(comparison)
    header = max((part.header for part in parts), key=len)
    columns = "ll" + "l" * len(header)
    lines = [
        "% needs \\usepackage{booktabs} and \\usepackage{graphicx}; written by `cotdistill compare`",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(str(results['experiment'].iloc[0]))}: comparison of methods}}",
        "% shrunk to the text width where it is wider",
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        "\\toprule",
        _latex_row(["dataset", "student", *header]),
    ]
    for part in parts:
        lines.append("\\midrule")
        for number, row in enumerate(part.rows):
            first = [part.dataset, part.student] if number == 0 else ["", ""]
            lines.append(_latex_row([*first, *row, *[""] * (len(header) - len(row))]))
    lines += ["\\bottomrule", "\\end{tabular}}", "\\par\\smallskip\\footnotesize\\raggedright"]
    lines += [f"{escape(note)}\\par" for note in footnotes(comparison, results)]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def escape(text: str) -> str:
    """`text` with every character that LaTeX reads as a command made literal."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_row(cells: list[str]) -> str:
    # a hyphen before a number is a minus sign; a cell that starts with '[' stands in braces, because
    # after a row end LaTeX would read it as an optional argument
    texts = [re.sub(r"(^|[\[ ])-(?=\d)", r"\1$-$", escape(cell)) for cell in cells]
    return " & ".join(f"{{{text}}}" if text.startswith("[") else text for text in texts) + r" \\"


def _pipes(header: list[str], rows: list[list[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    padded = _padded(cells)
    rule = ["-" * len(cell) for cell in padded[0]]
    return [f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]]]


def _padded(rows: list[list[str]]) -> list[list[str]]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

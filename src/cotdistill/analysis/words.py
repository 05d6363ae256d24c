"""Write numbers as words: percent, points, intervals, counts and lists of names."""

from __future__ import annotations

import pandas as pd


def format_percent(value: float, sign: bool = False) -> str:
    """Return a fraction as percent with one decimal; 'n/a' for NaN."""
    if pd.isna(value):
        return "n/a"
    # adding 0.0 turns -0.0, which a small negative difference rounds to, into 0.0
    number = round(100 * value, 1) + 0.0
    return f"{number:+.1f}" if sign else f"{number:.1f}"


def format_signed_percent(value: float) -> str:
    """Return a fraction as percent with a sign and one decimal, with more where one would show 0."""
    for decimals in (1, 2, 3):
        number = f"{100 * value:+.{decimals}f}"
        if float(number) != 0:
            return number
    return format_percent(0.0, sign=True)


def format_points(value: float) -> str:
    """Return a difference of fractions in percentage points, such as '+1.5 points'."""
    number = format_signed_percent(value)
    return f"{number} point" if number in ("+1.0", "-1.0") else f"{number} points"


def format_interval(low: float, high: float) -> str:
    """Return the bounds of an interval of fractions, in percent; neither may be NaN."""
    return f"{format_signed_percent(low)} to {format_signed_percent(high)}"


def format_p(p: float) -> str:
    """Return a p-value with its relation, such as '= 0.03'."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def format_count(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not 1."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def describe_test(n: int, groups: int | None) -> str:
    """Return a number of test examples, with that of their groups where some share one."""
    count = format_count(n, "test example")
    return count if groups is None or groups == n else f"{count} in {format_count(groups, 'group')}"


def join_names(names: list[str], word: str = "and") -> str:
    """Return names as a list in a sentence, `word` before the last."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"

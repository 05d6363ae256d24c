"""What was measured, as Markdown tables and sentences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

CELL = "student, method, data, batch, precision"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the smallest and largest value."""
    if not values:
        return "not measured"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with columns of even width; the first column to the left, the others to the right."""
    texts = [[str(value) for value in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *rest = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        return "| " + " | ".join([first.strip().ljust(widths[0]), *rest]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(texts[0]), rule, *map(line, texts[1:])])


def label(cell: dict[str, Any]) -> str:
    """`T5-small, dss, cqa, 16, fp32`."""
    return f"T5-{cell['shape']}, {cell['method']}, {cell['data']}, {cell['batch']}, {cell['precision']}"


def steps(found: list[dict[str, Any]]) -> str:
    """Part `steps`."""
    head = [CELL, "ratio (min-max)", "rounds", "ours ex/s", "published ex/s",
            "padding enc/dec %, published", "ours", "useful GFLOP/s, published", "ours",
            "of peak %, published", "ours", "computed, published", "ours"]  # fmt: skip
    rows = [[_against(item), *_step(item)] for item in found]
    width = len(head) - 1
    return markdown(head, [[row[0], *row[1:], *[""] * (width - len(row) + 1)] for row in rows])


def _against(item: dict[str, Any]) -> str:
    other = item.get("published", item["cell"]["precision"])
    return label(item["cell"]) + ("" if other == item["cell"]["precision"] else f" against {other}")


def _step(item: dict[str, Any]) -> list[str]:
    if "error" in item:
        return [item["error"]]
    batch, seconds = item["cell"]["batch"], item["seconds"]
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["published"], strict=True)]
    speeds = [f"{batch / statistics.median(seconds[way]):.2f}" for way in ("ours", "published")]
    achieved, shares, computed = [], [], []
    peak = statistics.median(item["matrix_flops"])
    for way in ("published", "ours"):
        time = sum(seconds[way])
        useful = sum(item["real_flops"][1:]) / time
        # what the first step computed beyond its real tokens, the later ones did too
        more = item["first_flops"][way] / item["real_flops"][0]
        achieved.append(f"{useful / 1e9:.1f}")
        shares.append(f"{100 * useful / peak:.0f}")
        computed.append(f"{100 * more * useful / peak:.0f}")
    padding = [_padding(item, way) for way in ("published", "ours")]
    return [spread(ratios), str(len(ratios)), *speeds, *padding, *achieved, *shares, *computed]


def _padding(item: dict[str, Any], way: str) -> str:
    """Part of the computed positions that held no token, percent: encoder/decoder."""
    parts = []
    for side in ("encoder", "decoder"):
        positions = item["first_positions"][way][side]
        tokens = item["first_tokens"][side]
        parts.append(f"{100 * (1 - tokens / positions):.0f}" if positions else "?")
    return "/".join(parts)


def memory(found: list[dict[str, Any]]) -> str:
    """Part `memory`: one row a cell, of the runs of each way."""
    head = [CELL, "peak ratio (min-max)", "rounds", "ours GB", "published GB",
            "above setup: ratio", "ours GB", "published GB"]  # fmt: skip
    rows = []
    for item in found:
        ours, theirs = item["ours"], item["published"]
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if "error" not in a and "error" not in b]
        ratio = _bound(ours, theirs) or spread([a["steps"] / b["steps"] for a, b in pairs])
        above = spread([_above(a) / _above(b) for a, b in pairs])
        rows.append([
            label(item["cell"]), ratio, len(pairs), _most(ours), _most(theirs), above,
            _most(ours, above=True), _most(theirs, above=True),
        ])  # fmt: skip
    return markdown(head, rows)


def _bound(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """What the ratio is below, where the published way ran out of memory: it held less than it needs."""
    held = [item["at_least"] for item in theirs if "at_least" in item]
    if len(held) < len(theirs) or any("error" in item for item in ours):
        return ""
    return f"below {max(item['steps'] for item in ours) / min(held):.2f}"


def _above(peaks: dict[str, float]) -> float:
    """MB that training took beyond what was resident at most before its first step."""
    return max(peaks["steps"] - peaks["setup"], 1.0)


def _most(rounds: list[dict[str, Any]], above: bool = False) -> str:
    gone = [item for item in rounds if "error" in item]
    if gone:
        held = f" at {gone[0]['at_least'] / 1000:.2f}" if "at_least" in gone[0] and not above else ""
        return f"{gone[0]['error']}{held}"
    return f"{max(_above(item) if above else item['steps'] for item in rounds) / 1000:.2f}"


def evaluation(found: list[dict[str, Any]]) -> str:
    """Part `evaluation`: a row for each comparison of the two ways."""
    head = [CELL, "ratio (min-max)", "rounds", "ours ex/s", "published ex/s", "different"]
    rows: list[list[object]] = []
    for item in found:
        if "error" in item:
            rows.append([label(item["cell"]), item["error"], *[""] * (len(head) - 2)])
            continue
        seconds, count = item["seconds"], item["examples"]
        both = [sum(pair) for pair in zip(seconds["published"], seconds["published options"], strict=True)]
        plain, scored = seconds["ours"], seconds["ours with options"]
        answers, chosen = (f"{item[name]} of {count}" for name in ("different", "different_options"))
        for name, ours, theirs, different in (
            ("generation", plain, seconds["published"], answers),
            ("generation and option scores", scored, both, chosen),
            ("generation and option scores, against generation", scored, seconds["published"], ""),
        ):
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            speeds = [f"{count / statistics.median(each):.1f}" for each in (ours, theirs)]
            what = f"{label(item['cell'])}, ends {item['ends']}: {name}"
            rows.append([what, spread(ratios), len(ratios), *speeds, different])
    return markdown(head, rows)


def start(found: dict[str, Any]) -> str:
    """Part `start`."""
    rows = [[name, spread(values), len(values)] for name, values in found["seconds"].items()]
    return markdown(["", "seconds (min-max)", "rounds"], rows)


def prepare(found: dict[str, Any]) -> str:
    """Part `prepare`."""
    columns = (found["commands"], found["seconds"], found["texts"])
    rows = [[name, f"{seconds:.2f}", texts] for name, seconds, texts in zip(*columns, strict=True)]
    return markdown(["`cotdistill`", "seconds", "texts tokenised"], rows)


WAYS = ("ours", "bare")


def workflow(found: dict[str, Any]) -> str:
    """Part `workflow`, and how the time grows with the jobs."""
    rows = []
    for jobs, item in found.items():
        ours, bare = item["seconds"]["ours"], item["seconds"]["bare"]
        ratios = [a / b for a, b in zip(ours, bare, strict=True)]
        counted = f"{item['jobs']['ours']} / {item['jobs']['bare']}"
        rows.append([jobs, counted, spread(ours, 1), spread(bare, 1), spread(ratios), len(ours)])
    text = markdown(["jobs", "planned, ours / bare", "ours s", "bare s", "ratio (min-max)", "rounds"], rows)
    if len(found) > 1:
        (few, first), (many, last) = list(found.items())[0], list(found.items())[-1]
        medians = [{way: statistics.median(item["seconds"][way]) for way in WAYS} for item in (first, last)]
        grown = [f"{medians[1][way] / medians[0][way]:.2f} ({way})" for way in WAYS]
        text += f"\n\n{int(many) / int(few):.1f} times the jobs take {' and '.join(grown)} times the time."
    return text

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


GROUPED = "published, grouped by length"
"""the way whose batches are not those of the others: compared by the time of all of them"""


def steps(found: list[dict[str, Any]]) -> str:
    """Part `steps`: a row for each way in each cell."""
    head = [CELL, "way", "ratio (min-max)", "rounds", "ex/s", "padding enc/dec %", "useful GFLOP/s",
            "of peak %", "computed, of peak %"]  # fmt: skip
    rows: list[list[str]] = []
    for item in found:
        if "error" in item:
            rows.append([_against(item), "", item["error"], *[""] * (len(head) - 3)])
            continue
        rows += [[_against(item), way, *_step(item, way)] for way in item["seconds"]]
    return markdown(head, rows)


def _against(item: dict[str, Any]) -> str:
    other = item.get("published", item["cell"]["precision"])
    return label(item["cell"]) + ("" if other == item["cell"]["precision"] else f" against {other}")


def _step(item: dict[str, Any], way: str) -> list[str]:
    """What a way's row says: ratio to the published way, rounds, speed, padding, and arithmetic by time."""
    batch, seconds, facts = item["cell"]["batch"], item["seconds"][way], item["facts"][way]
    theirs = item["seconds"]["published"]
    useful = sum(facts["real_flops"]) / sum(seconds)
    share = 100 * useful / statistics.median(item["matrix_flops"])
    if way == GROUPED:
        ratio, speed = f"{sum(theirs) / sum(seconds):.2f} in all", batch * len(seconds) / sum(seconds)
    else:
        ratio = spread([b / a for a, b in zip(seconds, theirs, strict=True)]) if way != "published" else "1"
        speed = batch / statistics.median(seconds)
    padding = ["?" if part is None else f"{100 * part:.0f}" for part in facts["padding"].values()]
    return [ratio, str(len(seconds)), f"{speed:.2f}", "/".join(padding), f"{useful / 1e9:.1f}",
            f"{share:.0f}", f"{facts['computed'] * share:.0f}"]  # fmt: skip


def memory(found: list[dict[str, Any]]) -> str:
    """Part `memory`: a row for each engine in each cell, beside the published way."""
    head = [CELL, "engine", "peak ratio (min-max)", "rounds", "ours GB", "published GB",
            "above setup: ratio", "ours GB", "published GB"]  # fmt: skip
    rows: list[list[object]] = []
    for item in found:
        if "error" in item:
            rows.append([label(item["cell"]), "", item["error"], *[""] * (len(head) - 3)])
            continue
        theirs = item["peaks"]["published"]
        rows += [
            [label(item["cell"]), engine, *_compare_peaks(ours, theirs)]
            for engine, ours in item["peaks"].items()
            if engine != "published"
        ]
    return markdown(head, rows)


def _compare_peaks(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[object]:
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if "error" not in a and "error" not in b]
    ratio = _bound(ours, theirs) or spread([a["steps"] / b["steps"] for a, b in pairs])
    above = spread([_above(a) / _above(b) for a, b in pairs])
    most = [_most(each, above=own) for own in (False, True) for each in (ours, theirs)]
    return [ratio, len(pairs), *most[:2], above, *most[2:]]


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
    """Part `evaluation`: a row for each comparison of an engine with the published way."""
    head = [CELL, "engine", "ratio (min-max)", "rounds", "ours ex/s", "published ex/s", "different"]
    rows: list[list[object]] = []
    for item in found:
        if "error" in item:
            rows.append([label(item["cell"]), "", item["error"], *[""] * (len(head) - 3)])
            continue
        seconds, count = item["seconds"], item["examples"]
        theirs = seconds["published"]
        both = [sum(pair) for pair in zip(theirs, seconds["published options"], strict=True)]
        for engine, different in item["different"].items():
            plain, scored = seconds[engine], seconds[f"{engine} with options"]
            for name, ours, other, differ in (
                ("generation", plain, theirs, f"{different['answers']} of {count}"),
                ("generation and option scores", scored, both, f"{different['options']} of {count}"),
                ("generation and option scores, against generation", scored, theirs, ""),
            ):
                ratios = [b / a for a, b in zip(ours, other, strict=True)]
                speeds = [f"{count / statistics.median(each):.1f}" for each in (ours, other)]
                what = f"{label(item['cell'])}, ends {item['ends']}: {name}"
                rows.append([what, engine, spread(ratios), len(ratios), *speeds, differ])
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


SNAKEFILES = ("ours", "bare")


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
        medians = [
            {way: statistics.median(item["seconds"][way]) for way in SNAKEFILES} for item in (first, last)
        ]
        grown = [f"{medians[1][way] / medians[0][way]:.2f} ({way})" for way in SNAKEFILES]
        text += f"\n\n{int(many) / int(few):.1f} times the jobs take {' and '.join(grown)} times the time."
    return text

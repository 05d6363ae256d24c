"""Print what the splits of datasets share as the table of docs/data.md, from the published data.

Usage: COTDISTILL_DATA=/path/to/data python benchmarks/overlap.py [DATASET ...]
(demo, svamp, cqa, anli1 and esnli by default: seconds, and a minute with all rows of e-SNLI)
"""

from __future__ import annotations

import argparse

from cotdistill.common.text_tables import markdown_table
from cotdistill.data import load
from cotdistill.data.overlap import KINDS
from cotdistill.data.overlap_report import IN_WORDS, measure_splits

HEADER = ["dataset", "inputs of", "rows", "repeat another", "looked up in", "rows there",
          *(IN_WORDS[kind] for kind in KINDS)]  # fmt: skip


def main(names: list[str]) -> None:
    """Print the table of these datasets."""
    rows = []
    for name in names:
        overlap = measure_splits(load(name))
        for shared in overlap.shared:
            counts = ["" if count is None else f"{count:,}" for count in shared.counts.values()]
            rows.append([
                f"`{name}`", shared.split, f"{shared.rows:,}", f"{overlap.repeated[shared.split]:,}",
                shared.other, f"{overlap.rows[shared.other]:,}", *counts,
            ])  # fmt: skip
    print(markdown_table(HEADER, rows, aligned=False), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("dataset", nargs="*", help="names (default: demo, svamp, cqa, anli1 and esnli)")
    main(parser.parse_args().dataset or ["demo", "svamp", "cqa", "anli1", "esnli"])

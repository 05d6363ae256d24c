"""Groups of examples that share a text: hypotheses on one premise, questions about one story.

Examples of one group are not independent: what makes one of them hard makes the others hard. So a group is
resampled as one wherever test examples are, and may be kept on one side of a split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from cotdistill.common.errors import UserError
from cotdistill.common.seeds import derive
from cotdistill.data.rows import SPLITS, Row

LONGEST = 64
"""characters of a name; what is longer is stood for by its digest, so that predictions stay small"""
LEAST_SHARE = 0.9
"""of the published size that valid and test must reach when whole groups are dealt to them"""


def name_group(text: str) -> str:
    """Return the name of the group of examples that share `text`: itself, or 16 hex digits of its SHA-256."""
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]


def count_groups(names: Iterable[str]) -> int:
    """Return the number of groups among examples with these names; each without a name is one of its own."""
    counts = Counter(names)
    alone = counts.pop("", 0)
    return len(counts) + alone


def cut_disjoint(splits: dict[str, list[Row]], extra: list[Row], dataset: str) -> dict[str, list[Row]]:
    """Return train, valid and test cut anew, so that no group is in two of them.

    splits: as they come, with valid. extra: rows that join train alone; those whose group is in valid or test
    are left out. dataset: name of the adapter.

    All rows of `splits` are pooled in their order. Their groups, in the order of a hash of the dataset's and
    their own name, are dealt whole: to test while they fit into its size as it came, else to valid while they
    fit into its size, else to train. So test and valid have at most the rows they came with (and as many
    where there are groups small enough to fill them), no seed has a part in it, and a group's place depends
    on no split that it was in. A row without a group is dealt alone, by its id. Rows of a split keep their
    order.

    Raises UserError where no row has a group, or where the groups are too large to reach LEAST_SHARE of the
    size of test or valid, or leave nothing to train on.
    """
    pool = [row for split in SPLITS for row in splits[split]]
    if not any(row.get("group") for row in pool):
        raise UserError(
            f"dataset '{dataset}': split 'group-disjoint': no row has a group; expected a dataset whose "
            "examples share a text (a custom one tells it in column 'group'), or 'split: published'"
        )
    counts = Counter(map(_get_unit, pool))
    room = {split: len(splits[split]) for split in ("test", "valid")}
    place: dict[tuple[str, str], str] = {}
    for unit in sorted(counts, key=lambda unit: (derive("group-disjoint", dataset=dataset, unit=unit), unit)):
        place[unit] = next((split for split, left in room.items() if counts[unit] <= left), "train")
        if place[unit] in room:
            room[place[unit]] -= counts[unit]
    made = {split: [row for row in pool if place[_get_unit(row)] == split] for split in SPLITS}
    if not made["train"] or any(len(made[each]) < LEAST_SHARE * len(splits[each]) for each in room):
        came, gave = (", ".join(str(len(some[each])) for each in SPLITS) for some in (splits, made))
        raise UserError(
            f"dataset '{dataset}': split 'group-disjoint': {len(counts)} groups of up to "
            f"{max(counts.values())} rows do not fill train, valid and test of {came} rows (but {gave}); "
            "expected smaller groups, or 'split: published'"
        )
    held_out = {unit for unit, split in place.items() if split != "train"}
    return {**made, "train": made["train"] + [row for row in extra if _get_unit(row) not in held_out]}


def _get_unit(row: Row) -> tuple[str, str]:
    """Return what is dealt as one: a group, or a row without one."""
    group = row.get("group", "")
    return ("group", group) if group else ("row", row["id"])

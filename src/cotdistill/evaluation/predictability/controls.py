"""Part examples into halves that share no input, and shuffle partners: what all estimates have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import torch

Halves = tuple[torch.Tensor, torch.Tensor]
"""row numbers of two halves; rows of one unit stand together in theirs"""


def join_units(*keys: Sequence[Hashable]) -> list[int]:
    """Return each row's unit, the same number for rows that share a key, directly or through other rows.

    keys: one or more a row, such as its input and its group; a blank text or None joins nothing.
    """
    parent = list(range(len(keys[0])))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for column in keys:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(column):
            if key not in ("", None):
                parent[find(row)] = find(first.setdefault(key, row))
    return [find(row) for row in range(len(parent))]


def cut_into_halves(units: Sequence[Hashable], seed: int) -> Halves:
    """Return two halves as equal as whole units allow; which unit is in which is drawn with `seed`."""
    halves: tuple[list[int], list[int]] = ([], [])
    drawn = _group(units, seed)
    for rows in sorted(drawn, key=len, reverse=True):
        min(halves, key=len).extend(rows)
    # largest first makes them equal; but what stands last checks the critic, and is to be like the rest
    order = {row: place for place, row in enumerate(row for rows in drawn for row in rows)}
    return tuple(torch.tensor(sorted(half, key=order.__getitem__)) for half in halves)  # type: ignore[return-value]


def shuffle_within(
    classes: Sequence[Hashable], units: Sequence[Hashable], seed: int
) -> tuple[torch.Tensor, float]:
    """Return a permutation of rows within their class, and the part of rows that get a row of another unit.

    Where more than half of a class is one unit, some of that unit's rows get one of their own; a row that is
    alone in its class stays.
    """
    members: dict[Hashable, list[list[int]]] = defaultdict(list)
    for rows in _group(list(zip(classes, units, strict=True)), seed):
        members[classes[rows[0]]].append(rows)
    permutation = list(range(len(classes)))
    for parts in members.values():
        rows = [row for part in parts for row in part]
        shift = max(map(len, parts))  # units stand together, so that this far on there is another one
        for place, row in enumerate(rows):
            permutation[row] = rows[(place + shift) % len(rows)]
    moved = sum(units[row] != units[other] for row, other in enumerate(permutation))
    return torch.tensor(permutation), moved / len(permutation)


def _group(keys: Sequence[Hashable], seed: int) -> list[list[int]]:
    """Return the rows of each key, keys and their rows in an order drawn with `seed`."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row in torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist():
        groups[keys[row]].append(row)
    return list(groups.values())

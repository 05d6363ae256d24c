"""Where the tokens of a batch stand: packed, one sequence behind the other, and padded where they must be."""

from __future__ import annotations

from collections.abc import Sequence

import torch

GROUP = 32
"""sequences that attention pads to the longest of them"""


def groups_of(count: int) -> list[int]:
    """How many sequences each group of `count` sequences in their order holds."""
    return [min(GROUP, count - start) for start in range(0, count, GROUP)]


class Group:
    """Sequences next to each other that are padded together: (n, w) packed, (rows, longest, w) padded."""

    def __init__(self, lengths: torch.Tensor, start: int, device: torch.device) -> None:
        """lengths: (rows,); start: the first token's place among all packed ones."""
        self.rows, self.longest = len(lengths), int(lengths.max())
        size = int(lengths.sum())
        self.tokens = slice(start, start + size)
        self.padding: torch.Tensor | None = None
        """(rows, longest), true where there is no token; None where there is one everywhere"""
        if size < self.rows * self.longest:
            real = torch.arange(self.longest) < lengths[:, None]
            place = torch.where(real, real.flatten().cumsum(0).view_as(real) - 1, size).flatten()
            self._packed = real.flatten().nonzero()[:, 0].to(device)
            self._padded = place.to(device)
            self.padding = ~real.to(device)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """(rows, longest, w) of this group's tokens in (N, w), 0 where there is none."""
        own = packed[self.tokens]
        if self.padding is not None:
            # a row of zeros at the end, for all that is padding: quicker than writing into a zeroed tensor
            own = torch.cat([own, own.new_zeros(1, own.shape[1])]).index_select(0, self._padded)
        return own.view(self.rows, self.longest, -1)

    def unpad(self, padded: torch.Tensor) -> torch.Tensor:
        """(n, w), the tokens of (rows, longest, w)."""
        flat = padded.reshape(self.rows * self.longest, -1)
        return flat if self.padding is None else flat.index_select(0, self._packed)


class Layout:
    """The sequences of a pass in their order, cut into groups."""

    def __init__(self, lengths: Sequence[int], groups: Sequence[int], device: torch.device) -> None:
        """groups: how many sequences each holds."""
        self.lengths = list(lengths)
        self.longest = max(self.lengths)
        self.groups: list[Group] = []
        start = 0
        for part in torch.tensor(self.lengths).split(list(groups)):
            self.groups.append(Group(part, start, device))
            start += int(part.sum())

    def of(self, rows: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """Where the tokens of some of the sequences are, and their lengths."""
        starts = torch.tensor([0, *self.lengths]).cumsum(0).tolist()
        places = [torch.arange(starts[row], starts[row + 1]) for row in rows]
        return torch.cat(places), [self.lengths[row] for row in rows]

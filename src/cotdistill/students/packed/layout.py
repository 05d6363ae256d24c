"""Where the tokens of a batch are: packed, one sequence behind the other, and padded where they must be."""

from __future__ import annotations

from collections.abc import Sequence

import torch

GROUP = 32
"""sequences that attention pads to the longest of them"""


def size_groups(count: int) -> list[int]:
    """Return how many sequences each group holds, for `count` sequences cut into groups in their order."""
    return [min(GROUP, count - start) for start in range(0, count, GROUP)]


class Group:
    """Sequences next to each other that are padded together for attention, with conversions both ways.

    Packed: (n, heads * d_kv) for n tokens. Padded: (rows, heads, longest, d_kv).
    """

    def __init__(self, lengths: torch.Tensor, start: int, device: torch.device) -> None:
        """Compute the places of the group's tokens.

        lengths: (rows,) tokens of each sequence; start: the first token's place among all packed ones.
        """
        self.rows, self.longest = len(lengths), int(lengths.max())
        self.size = int(lengths.sum())
        self.tokens = slice(start, start + self.size)
        real = torch.arange(self.longest) < lengths[:, None]
        self._places = (real.flatten().cumsum(0).view_as(real) - 1).to(device)
        self._real = real.to(device)
        self.padding: torch.Tensor | None = None
        """(rows, longest), true where there is no token; None where there is one everywhere"""
        if self.size < self.rows * self.longest:
            self.padding = ~self._real
        self._indices: dict[tuple[int, str], torch.Tensor] = {}

    def split(self, packed: torch.Tensor, heads: int, zeros: bool = False) -> torch.Tensor:
        """Return this group's tokens of packed: (N, heads * d_kv) as padded: (rows, heads, longest, d_kv).

        Padding holds numbers of other tokens, or with `zeros` zeros.
        """
        flat = packed[self.tokens].reshape(self.size * heads, -1)
        if zeros and self.padding is not None:
            flat = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
        found = flat.index_select(0, self._index(heads, "zeros" if zeros else "any"))
        return found.view(self.rows, heads, self.longest, -1)

    def join(self, padded: torch.Tensor) -> torch.Tensor:
        """Return the tokens of padded: (rows, heads, longest, d_kv) as packed: (n, heads * d_kv)."""
        heads = padded.shape[1]
        flat = padded.reshape(self.rows * heads * self.longest, -1)
        return flat.index_select(0, self._index(heads, "join")).view(self.size, -1)

    def _index(self, heads: int, kind: str) -> torch.Tensor:
        """Return the rows that a conversion selects; computed once, as all layers ask for the same.

        They are rows of (n * heads, d_kv) for the kinds `any` and `zeros`, of (rows * heads * longest, d_kv)
        for `join`.
        """
        if (heads, kind) not in self._indices:
            device = self._places.device
            head = torch.arange(heads, device=device)
            if kind == "join":
                row, column = self._real.nonzero(as_tuple=True)
                index = (row[:, None] * heads + head) * self.longest + column[:, None]
            else:
                index = self._places[:, None, :] * heads + head[:, None]
                if self.padding is not None:
                    nothing = self.size * heads if kind == "zeros" else 0
                    index = index.masked_fill(self.padding[:, None, :], nothing)
            self._indices[heads, kind] = index.flatten()
        return self._indices[heads, kind]


class Layout:
    """The sequences of a pass in their order, cut into groups."""

    def __init__(self, lengths: Sequence[int], groups: Sequence[int], device: torch.device) -> None:
        """Cut sequences into groups. lengths: tokens of each; groups: how many sequences each group holds."""
        self.lengths = list(lengths)
        self.longest = max(self.lengths)
        self.groups: list[Group] = []
        start = 0
        for part in torch.tensor(self.lengths).split(list(groups)):
            self.groups.append(Group(part, start, device))
            start += int(part.sum())

    def find_tokens(self, rows: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """Return the places of some sequences' tokens among all tokens, and those sequences' lengths."""
        starts = torch.tensor([0, *self.lengths]).cumsum(0).tolist()
        places = [torch.arange(starts[row], starts[row + 1]) for row in rows]
        return torch.cat(places), [self.lengths[row] for row in rows]

"""Likelihoods of given targets, for several targets of each input; equal beginnings are computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cotdistill.students.packed.layout import Layout
from cotdistill.students.packed.output import OutputLayer, exponentiate
from cotdistill.students.packed.passes import Shared
from cotdistill.students.packed.writing import Reading, Writer

MOST = 1024
"""positions whose logits are held at once"""


class Scorer:
    """Scores targets for inputs that a Writer has read; see `students.interface.Scorer`."""

    def __init__(self, writer: Writer) -> None:
        self.passes, self.output = writer.passes, writer.output

    @torch.inference_mode()
    def log_likelihoods(
        self, read: Reading, targets: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Return log p(target | input); see `students.interface.Scorer`.

        All targets go through the decoder together, teacher-forced; those of one input share what they
        begin with.
        """
        if not any(targets):
            return [[] for _ in targets]
        device = self.output.weight.device
        # attention takes groups of the same inputs on both sides, so inputs without targets are left out
        rows = [row for row, own in enumerate(targets) if own]
        places, lengths = read.layout.find_tokens(rows)
        keys_values = read.keys_values
        if len(rows) < len(targets):
            places = places.to(device)
            keys_values = [(key[places], value[places]) for key, value in keys_values]
        trees = [_Tree(targets[row]) for row in rows]
        sizes = [len(tree.tokens) for tree in trees]
        shared = _join(trees, device)
        start = int(self.passes.model.config.decoder_start_token_id)
        before = [token if token is not None else start for tree in trees for token in tree.tokens]
        states = self.passes.decode(
            self.passes.embed(torch.tensor(before, device=device)), Layout(sizes, [len(sizes)], device),
            keys_values, Layout(lengths, [len(lengths)], device), shared,
        )  # fmt: skip
        tokens = torch.tensor([token for row in rows for ids in targets[row] for token in ids], device=device)
        logs = _compute_log_probabilities(self.output, states, shared.places, tokens)
        left = iter(each.sum().item() for each in logs.split(shared.layout.lengths))
        return [[next(left) for _ in own] for own in targets]


class _Tree:
    """The targets of one input as a tree of tokens: a node is a beginning that one or more targets share."""

    def __init__(self, targets: Sequence[Sequence[int]]) -> None:
        self.tokens: list[int | None] = [None]
        """what each node reads; the root reads the start token"""
        self.paths: list[list[int]] = []
        """of each target the nodes that its tokens are predicted at"""
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for ids in targets:
            for end in range(1, len(ids)):
                if tuple(ids[:end]) not in nodes:
                    nodes[tuple(ids[:end])] = len(self.tokens)
                    self.tokens.append(ids[end - 1])
            self.paths.append([nodes[tuple(ids[:end])] for end in range(len(ids))])


def _join(trees: Sequence[_Tree], device: torch.device) -> Shared:
    """Return where the targets' positions lie among the nodes of all trees, end to end."""
    places: list[int] = []
    start = 0
    for tree in trees:
        places += [start + node for path in tree.paths for node in path]
        start += len(tree.tokens)
    firsts: dict[int, int] = {}
    for position, place in enumerate(places):
        firsts.setdefault(place, position)
    lengths = [len(path) for tree in trees for path in tree.paths]
    first = torch.tensor([firsts[node] for node in range(start)], device=device)
    layout = Layout(lengths, [len(lengths)], device)
    return Shared(torch.tensor(places, device=device), first, layout)


def _compute_log_probabilities(
    layer: OutputLayer, states: torch.Tensor, places: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return (L,) float64, log p(target) at each position, whose state is that of its place."""
    logs = torch.zeros(len(places), dtype=torch.float64, device=states.device)
    for start in range(0, len(states), MOST):
        logits = layer.compute_logits(states[start : start + MOST])
        own = ((places >= start) & (places < start + len(logits))).nonzero()[:, 0]
        nodes = places[own] - start
        chosen = logits[nodes, targets[own]]
        highest, sums = exponentiate(logits)
        logs[own] = (chosen - (highest + sums.log())[nodes, 0]).double()
    return logs

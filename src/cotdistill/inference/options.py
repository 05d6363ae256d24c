"""Likelihoods of the options of a closed label set: how much a student believes in each label.

The score of an option is the log-likelihood of its token sequence, end token included, given the input;
normalised over the distinct options of the example it is the confidence whose calibration is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cotdistill.students.packed.layout import Layout
from cotdistill.students.packed.output import OutputLayer, exponentials
from cotdistill.students.packed.passes import Passes, Read, Shared

Choices = dict[tuple[int, ...], str]
"""the distinct options of one example: token ids, end token included, and the text"""

MOST = 1024
"""positions whose logits are held at once"""


def choices(
    options: Sequence[Sequence[str]], ids: Sequence[Sequence[Sequence[int]]], golds: Sequence[str],
    end: int, longest: int,
) -> list[Choices]:  # fmt: skip
    """The distinct options of every example, in the order in which they first stand.

    ids: their tokens without the end token `end`, with which they are cut at `longest` tokens, as labels are.
    Options that the tokenizer cannot tell apart are one; its text is the gold label's if that is among them.
    """
    found = []
    for row, tokens, gold in zip(options, ids, golds, strict=True):
        cut = [(*each[: longest - 1], end) for each in tokens]
        one: Choices = {}
        for own, text in zip(cut, row, strict=True):
            one.setdefault(own, text)
        if gold in row:
            one[cut[row.index(gold)]] = gold
        found.append(one)
    return found


@torch.inference_mode()
def log_likelihoods(
    passes: Passes, output: OutputLayer, read: Read, layout: Layout,
    candidates: Sequence[Sequence[Sequence[int]]],
) -> list[list[float]]:  # fmt: skip
    """log p(option | input) in nats, for every option (its token ids) of each of the R inputs.

    read: what the decoder reads of the packed inputs. All options go through the decoder together,
    teacher-forced; those of one input share what they begin with.
    """
    if not any(candidates):
        return [[] for _ in candidates]
    device = output.weight.device
    # attention takes groups of the same inputs on both sides, so inputs without options stay out
    rows = [row for row, options in enumerate(candidates) if options]
    own, lengths = layout.of(rows)
    if len(rows) < len(candidates):
        own = own.to(device)
        read = [(key[own], value[own]) for key, value in read]
    trees = [_Tree(candidates[row]) for row in rows]
    sizes = [len(tree.tokens) for tree in trees]
    shared = _joined(trees, device)
    start = int(passes.model.config.decoder_start_token_id)
    before = [token if token is not None else start for tree in trees for token in tree.tokens]
    states = passes.decoder(
        passes.embedded(torch.tensor(before, device=device)), Layout(sizes, [len(sizes)], device),
        read, Layout(lengths, [len(lengths)], device), shared,
    )  # fmt: skip
    targets = torch.tensor([token for row in rows for ids in candidates[row] for token in ids], device=device)
    logs = _logs(output, states, shared.places, targets)
    left = iter(each.sum().item() for each in logs.split(shared.layout.lengths))
    return [[next(left) for _ in options] for options in candidates]


class _Tree:
    """The options of one input as a tree of tokens: a node is what the decoder has read up to there."""

    def __init__(self, options: Sequence[Sequence[int]]) -> None:
        self.tokens: list[int | None] = [None]
        """what each node reads; the root reads the start token"""
        self.paths: list[list[int]] = []
        """of each option the nodes that its tokens are predicted at"""
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for ids in options:
            for end in range(1, len(ids)):
                if tuple(ids[:end]) not in nodes:
                    nodes[tuple(ids[:end])] = len(self.tokens)
                    self.tokens.append(ids[end - 1])
            self.paths.append([nodes[tuple(ids[:end])] for end in range(len(ids))])


def _joined(trees: Sequence[_Tree], device: torch.device) -> Shared:
    """Where the options' positions lie among the nodes of all trees, end to end."""
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


def _logs(
    layer: OutputLayer, states: torch.Tensor, places: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """(L,) float64, log p(target) at each position, whose state is that of its place."""
    logs = torch.zeros(len(places), dtype=torch.float64, device=states.device)
    for start in range(0, len(states), MOST):
        logits = layer.logits(states[start : start + MOST])
        own = ((places >= start) & (places < start + len(logits))).nonzero()[:, 0]
        nodes = places[own] - start
        chosen = logits[nodes, targets[own]]
        highest, sums = exponentials(logits)
        logs[own] = (chosen - (highest + sums.log())[nodes, 0]).double()
    return logs


def normalised(scores: Sequence[float]) -> list[float]:
    """Probabilities in proportion to exp(score), which sum to 1. Natural logarithms; any shift is allowed."""
    highest = max(scores, default=0.0)
    parts = [math.exp(score - highest) for score in scores]
    total = math.fsum(parts)
    return [part / total for part in parts]

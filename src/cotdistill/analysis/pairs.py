"""Pair the runs of two methods, seed by seed, by what they answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cotdistill.analysis import crossed
from cotdistill.common.errors import UserError
from cotdistill.common.seeds import derive
from cotdistill.tables.columns import BLOCK

Answers = Mapping[str, pd.DataFrame]
"""run id -> `correct` and `group`, by example id, sorted by it"""


@dataclass(frozen=True)
class Pairs:
    """The runs of a method and of the baseline that can be compared, seed by seed, and those that cannot."""

    seeds: list[int]
    proposed: NDArray[np.bool_]
    baseline: NDArray[np.bool_]
    missing: list[str]
    unpaired: list[str]
    groups: NDArray[np.object_]
    """the group of each example: those of one group are not independent, as they share a text"""

    @property
    def differences(self) -> NDArray[np.float64]:
        """Seeds x examples: 1 where only the method is right, -1 where only the baseline is."""
        return self.proposed.astype(np.float64) - self.baseline

    @property
    def units(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums of the differences, seeds x groups, and the groups' sizes, see `crossed.gather`."""
        return crossed.gather(self.differences, self.groups)

    @property
    def n_examples(self) -> int:
        return int(self.proposed.shape[1])

    @property
    def n_groups(self) -> int:
        return len(set(self.groups))


def group_answers(examples: pd.DataFrame) -> Answers:
    """Return what each run answered. Raises UserError when it answered an example twice.

    examples: with `run`, `example`, `correct` and, where examples share a text, `group`; one without a group
    is a group of its own.
    """
    examples = examples.assign(group=_fill_groups(examples))
    found = {}
    for run, part in examples.groupby("run", sort=True):
        by_example = part.set_index(part["example"].astype(str))[["correct", "group"]]
        if by_example.index.has_duplicates:
            twice = by_example.index[by_example.index.duplicated()][0]
            raise UserError(f"run '{run}': example '{twice}' stands twice among its answers; expected once")
        found[str(run)] = by_example.sort_index()
    return found


def _fill_groups(examples: pd.DataFrame) -> pd.Series[str]:
    own = "example " + examples["example"].astype(str)
    if "group" not in examples:
        return own
    named = examples["group"].fillna("").astype(str)
    return ("group " + named).where(named != "", own)


def split_blocks(runs: pd.DataFrame, baseline: str) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Return (axes, runs) of each block, sorted. Raises UserError when the baseline is not among the runs."""
    if baseline not in set(runs["method"]):
        names = ", ".join(sorted(set(runs["method"])))
        raise UserError(f"'baseline': method '{baseline}' is not in the grid (methods: {names})")
    return [(dict(zip(BLOCK, key, strict=True)), block) for key, block in runs.groupby(BLOCK, sort=True)]


def pair_runs(block: pd.DataFrame, method: str, baseline: str, answers: Answers) -> Pairs:
    """Return the pairs of `method` and `baseline` in one block of runs, by seed."""
    done: dict[str, dict[int, str]] = {method: {}, baseline: {}}
    missing, unpaired = [], []
    ordered = block[block["method"].isin([method, baseline])].sort_values(["seed", "method"])
    for run, name, seed, status in zip(
        ordered["run"], ordered["method"], ordered["seed"], ordered["status"], strict=True
    ):
        if status == "done" and run in answers:
            done[name][int(seed)] = run
        else:
            missing.append(f"{run} ({'no answers' if status == 'done' else 'not finished'})")
    alike = {}
    for seed in sorted(done[method].keys() & done[baseline].keys()):
        ours, theirs = answers[done[method][seed]], answers[done[baseline][seed]]
        if ours.index.equals(theirs.index):
            alike[seed] = ours, theirs
        else:
            unpaired.append(f"{done[method][seed]}: other test examples than {done[baseline][seed]}")
    # one matrix needs one set of examples: the one of most seeds, and of the first among equals
    sets = [tuple(ours.index) for ours, _ in alike.values()]
    common = max(sorted(set(sets)), key=sets.count, default=())
    seeds = [seed for seed, (ours, _) in alike.items() if tuple(ours.index) == common]
    unpaired += [
        f"{done[method][seed]}: other test examples than most seeds" for seed in alike if seed not in seeds
    ]
    shape = (len(seeds), len(common))
    sides = [
        np.array([alike[seed][side]["correct"] for seed in seeds], dtype=bool).reshape(shape)
        for side in (0, 1)
    ]
    groups = alike[seeds[0]][0]["group"].to_numpy(dtype=object) if seeds else np.array([], dtype=object)
    return Pairs(seeds, sides[0], sides[1], missing, unpaired, groups)


def make_rng(purpose: str, key: dict[str, Any], *names: str) -> np.random.Generator:
    """Return a random generator that follows from the names alone, not from the order of work."""
    return np.random.default_rng(derive(purpose, **key, names="|".join(names)))

"""Experiments whose truth is known: the answers of several methods, by seed and test example.

An example is answered correctly when a normal score is above 0 (a probit model, whose mean accuracy is known
exactly); the score sums the example's difficulty, which all methods share, the method's own taste in
examples, the seed's effect, the seed's effect on this method, and noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri


def list_sizes(counts: Mapping[int, int]) -> tuple[int, ...]:
    """Return the sizes of groups, from the number of groups of each size."""
    return tuple(size for size, number in counts.items() for _ in range(number))


@dataclass(frozen=True)
class World:
    """Accuracy of the baseline, the true difference, and standard deviations of the parts of a score."""

    accuracy: float
    difference: float
    difficulty: float = 1.5
    taste: float = 0.4
    seed: float = 0.05
    seed_method: float = 0.05
    low_share: float = 0.0
    """of the proposed method's seeds, those that end up `low_drop` lower; the difference is of the mean"""
    low_drop: float = 0.0
    sizes: tuple[int, ...] = ()
    """of the groups that test examples fall into; none: each is alone"""
    together: float = 0.0
    """share of the variance of difficulty and taste that the examples of a group have in common"""

    def draw(self, n: int, m: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return correct or not, seeds x examples, of the proposed method and of the baseline."""
        ours, theirs = self.draw_methods(1, n, m, rng)
        return ours, theirs

    def draw_methods(self, methods: int, n: int, m: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
        """Return correct or not, seeds x examples, of each proposed method, and of the baseline at the end.

        m: test examples; where they are in groups, the groups say how many.
        """
        m = sum(self.sizes) or m
        parts = (self.difficulty, self.taste, self.seed, self.seed_method)
        spread = np.sqrt(1 + sum(part**2 for part in parts))
        shared = self._scatter(self.difficulty, m, rng) + self.seed * rng.normal(size=(n, 1))
        answers = []
        for proposed in [True] * methods + [False]:
            own = self._scatter(self.taste, m, rng) + self.seed_method * rng.normal(size=(n, 1))
            accuracy = np.full((n, 1), self.accuracy + proposed * self.difference)
            if proposed and self.low_share:
                low = rng.random((n, 1)) < self.low_share
                accuracy += self.low_drop * (self.low_share - low)
            answers.append(spread * ndtri(accuracy) + shared + own + rng.normal(size=(n, m)) > 0)
        return answers

    def name_groups(self) -> NDArray[np.str_]:
        """Return the group of each test example."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes).astype(str)

    def _scatter(self, deviation: float, m: int, rng: np.random.Generator) -> NDArray[np.float64]:
        if not self.sizes:
            return deviation * rng.normal(size=m)
        common = np.repeat(rng.normal(size=len(self.sizes)), self.sizes)
        own = rng.normal(size=m)
        return deviation * (np.sqrt(self.together) * common + np.sqrt(1 - self.together) * own)

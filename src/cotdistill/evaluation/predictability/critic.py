"""A critic that scores how well two states fit each other, and what it finds in other examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cotdistill.evaluation.predictability import CANDIDATES, CEILING
from cotdistill.evaluation.predictability.components import fit_canonical, fit_principal
from cotdistill.evaluation.predictability.controls import Halves

BATCH = 128
"""most samples a batch of fitting"""
COMPONENTS = 16
PER_COMPONENT = 8
"""samples to fit for each principal component of a side"""
EXTREME = 3.0
"""features are cut at this many standard deviations: one outlier must not decide a batch"""
STEPS, PATIENCE, RATE = 200, 20, 0.25
"""of the descent, over all rows at once"""


@dataclass(frozen=True)
class Found:
    """What critics found in examples that they were not fitted to.

    share: InfoNCE, a lower bound on I(Z;V) in expectation, over CEILING; it may fall below 0 by chance.
    retrieval: the part of examples whose partner scores highest among CANDIDATES; equal scores share it.
    """

    share: float
    retrieval: float


def find_partners(z: torch.Tensor, v: torch.Tensor, halves: Halves, seed: int) -> Found:
    """Return how well partners are found in rows of z: (n, d), v: (n, e), with critics of the other half.

    A critic is fitted on one half and read on the other, and the other way round. A half is read in batches
    of CANDIDATES in an order drawn with `seed`; its last batch also has rows of the one before, so that all
    are of one size. Computed in float64 on the CPU; the global random state is not touched. Raises ValueError
    for a half of fewer rows.
    """
    z, v = z.double().cpu(), v.double().cpu()
    gains, hits = [], []
    for fit, read in (halves, halves[::-1]):
        if len(read) < CANDIDATES:
            raise ValueError(f"a half of {len(read)} rows: expected at least {CANDIDATES}")
        critic = Critic(z[fit], v[fit])
        mixed = read[torch.randperm(len(read), generator=torch.Generator().manual_seed(seed))]
        starts = [*range(0, len(read) - CANDIDATES, CANDIDATES), len(read) - CANDIDATES]
        batches = torch.stack([mixed[start : start + CANDIDATES] for start in starts])
        scores = critic.score(z[batches], v[batches])
        gains.append(_compute_gains(scores))
        hits.append(_find_hits(scores))
    return Found(float(torch.cat(gains).mean()) / CEILING, float(torch.cat(hits).mean()))


class Critic:
    """A critic f(z, v), linear in a few products of Hermite polynomials of canonical variates.

    The polynomials are the first and the second. Products are taken within a pair of variates (and of v
    alone; what depends on z alone cancels). For Gaussian samples this family holds the best critic, the
    logarithm of the density ratio. The weights start at 0, where the bound is 0, and descend InfoNCE's
    cross-entropy, which is convex; those are kept that did best on a quarter of the rows, which are not
    fitted to.
    """

    def __init__(self, z: torch.Tensor, v: torch.Tensor) -> None:
        edge = len(z) - len(z) // 4
        most = max(1, min(COMPONENTS, edge // PER_COMPONENT))
        self.first, self.second = fit_principal(z[:edge], most), fit_principal(v[:edge], most)
        self.left, self.right, _ = fit_canonical(self.first(z[:edge]), self.second(v[:edge]))
        self.weights = self._fit(
            *self._compute_features(_cut_into_batches(z[:edge]), _cut_into_batches(v[:edge])),
            *self._compute_features(_cut_into_batches(z[edge:]), _cut_into_batches(v[edge:])),
        )

    def score(self, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the scores of all pairs within each batch, (batches, size, size).

        z: (batches, size, d), v: (batches, size, e).
        """
        p, q = self._compute_features(z, v)
        return (p * self.weights) @ q.mT

    def _compute_features(self, z: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the two factors of each product, (batches, size, products) each."""
        x, y = self.first(z) @ self.left, self.second(v) @ self.right
        (x1, x2), (y1, y2), one = _compute_polynomials(x), _compute_polynomials(y), torch.ones_like(x)
        return torch.cat([x1, x1, x2, x2, one, one], -1), torch.cat([y1, y2, y1, y2, y1, y2], -1)

    @staticmethod
    def _fit(p: torch.Tensor, q: torch.Tensor, check_p: torch.Tensor, check_q: torch.Tensor) -> torch.Tensor:
        weights = ahead = best_weights = p.new_zeros(p.shape[2])
        best, best_step = 0.0, 0
        truth = torch.eye(p.shape[1], dtype=p.dtype)
        for step in range(1, STEPS + 1):
            wrong = ((p * ahead) @ q.mT).softmax(2) - truth
            gradient = (p * (wrong @ q)).sum((0, 1)) / (p.shape[0] * p.shape[1])
            before, weights = weights, ahead - RATE * gradient
            ahead = weights + step / (step + 3) * (weights - before)  # Nesterov 1983
            bound = float(_compute_gains((check_p * weights) @ check_q.mT).mean())
            if bound > best:
                best, best_step, best_weights = bound, step, weights
            elif step - best_step >= PATIENCE:
                break
        return best_weights


def _compute_polynomials(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clamp(-EXTREME, EXTREME)
    return x, (x**2 - 1) / 2**0.5


def _compute_gains(scores: torch.Tensor) -> torch.Tensor:
    """Return each row's part of the bound (batches, size), from scores of all pairs (batches, size, size)."""
    return scores.log_softmax(2).diagonal(dim1=1, dim2=2) + math.log(scores.shape[2])


def _find_hits(scores: torch.Tensor) -> torch.Tensor:
    """Return each row's part in the highest score, (batches, size): 1 where its partner alone has it."""
    highest = scores >= scores.amax(2, keepdim=True) - 1e-9
    return highest.diagonal(dim1=1, dim2=2).double() / highest.sum(2)


def _cut_into_batches(rows: torch.Tensor) -> torch.Tensor:
    """Return rows (n, k) as (batches, size, k), size at most BATCH; a few rows at the end may be left out."""
    count = -(-len(rows) // BATCH)
    size = len(rows) // count
    return rows[: count * size].view(count, size, -1)

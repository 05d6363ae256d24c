"""InfoNCE: a lower bound on mutual information, from how well a critic finds each sample's partner."""

from __future__ import annotations

import math

import torch

from cotdistill.evaluation.information.components import fit_canonical, fit_principal
from cotdistill.evaluation.information.estimate import Estimate

BATCH = 128
"""most samples a batch: the bound cannot exceed its logarithm"""
COMPONENTS = 16
PER_COMPONENT = 8
"""samples to fit for each principal component of a side"""
EXTREME = 3.0
"""features are cut at this many standard deviations: one outlier must not decide a batch"""
STEPS, PATIENCE, RATE = 200, 20, 0.25
"""of the descent, over all rows at once"""


def estimate_infonce(z: torch.Tensor, v: torch.Tensor, seed: int) -> Estimate:
    """Return the mean of f(z_i, v_i) - log mean_j exp f(z_i, v_j) over rows of z: (n, d), v: (n, e), float64.

    van den Oord et al. 2018, equations 4 and 5: a lower bound on I(Z;V) whatever the critic f, as long as it
    was fitted on other rows, and at most the logarithm of the batch. The rows are cut in two halves, drawn
    with `seed`; f is fitted on one and evaluated on the other, and the other way round. A weak critic makes
    the bound loose; it may fall below 0 by chance. The interval is that of a mean over rows, and takes the
    critics as given; one that lies below 0, where no information can be, is extended to it.
    """
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    halves = order[: len(z) // 2], order[len(z) // 2 :]
    gains, ceilings = [], []
    for fit, read in (halves, halves[::-1]):
        critic = _Critic(z[fit], v[fit])
        found = critic.compute_gains(_cut_into_batches(z[read]), _cut_into_batches(v[read]))
        gains.append(found.flatten())
        ceilings.append(math.log(found.shape[1]))
    gain = torch.cat(gains)
    value, margin = float(gain.mean()), 1.96 * float(gain.std()) / len(gain) ** 0.5
    return Estimate(value, value - margin, max(value + margin, 0.0), len(gain), max(ceilings))


class _Critic:
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

    def compute_gains(self, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return what each row of z: (batches, size, d) and v adds to the bound: (batches, size)."""
        p, q = self._compute_features(z, v)
        return _compute_gains((p * self.weights) @ q.mT)

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


def _cut_into_batches(rows: torch.Tensor) -> torch.Tensor:
    """Return rows (n, k) as (batches, size, k), size at most BATCH; a few rows at the end may be left out."""
    count = -(-len(rows) // BATCH)
    size = len(rows) // count
    return rows[: count * size].view(count, size, -1)

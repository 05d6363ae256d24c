"""How much of known mutual information the measurement of predictability finds, and how little it invents.

    python benchmarks/known_information.py [--seeds 5] [--sizes 256 512 1024]

Prints the table of docs/methods.md: for samples whose mutual information is known, what InfoNCE finds in
nats (log(64) = 4.16 at most), and how often partners are found, mean and standard deviation over draws.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import torch

from cotdistill.evaluation.predictability import CANDIDATES, CEILING
from cotdistill.evaluation.predictability.controls import cut_into_halves
from cotdistill.evaluation.predictability.critic import Found, find_partners

Pair = tuple[np.ndarray, np.ndarray]
Draw = Callable[[int, int], Pair]


def draw_classes(classes: int, noise: float = 0.01, dimensions: int = 64) -> Draw:
    """Draw pairs that share a class alone: log(classes) nats where the noise is small."""

    def draw(n: int, seed: int) -> Pair:
        random = np.random.default_rng(seed)
        kind = random.integers(0, classes, n)
        centres = random.standard_normal((2, classes, dimensions))
        first, second = (each[kind] + noise * random.standard_normal((n, dimensions)) for each in centres)
        return first, second

    return draw


def draw_one_hot(n: int, seed: int) -> Pair:
    """Draw pairs of equal unit vectors in 8 dimensions."""
    kind = np.random.default_rng(seed).integers(0, 8, n)
    return np.eye(8)[kind], np.eye(8)[kind]


def draw_gaussian(dimensions: int, rho: float, heavy: bool = False) -> Draw:
    """Draw Gaussian pairs whose coordinates have the correlation rho.

    heavy: each number is stretched by sinh(2x), which keeps the information.
    """

    def draw(n: int, seed: int) -> Pair:
        random = np.random.default_rng(seed)
        z, noise = random.standard_normal((2, n, dimensions))
        v = rho * z + math.sqrt(1 - rho**2) * noise
        return (np.sinh(2 * z), np.sinh(2 * v)) if heavy else (z, v)

    return draw


def tell_gaussian(dimensions: int, rho: float) -> float:
    """Return the mutual information of such pairs in nats."""
    return -dimensions / 2 * math.log(1 - rho**2)


CASES: dict[str, tuple[float, Draw]] = {
    "7 clusters in 64 dimensions": (math.log(7), draw_classes(7)),
    "49 classes in 64 dimensions": (math.log(49), draw_classes(49)),
    "8 classes, one-hot": (math.log(8), draw_one_hot),
    "Gaussian, 8 dimensions, correlation 0": (0.0, draw_gaussian(8, 0)),
    "Gaussian, 64 dimensions, correlation 0": (0.0, draw_gaussian(64, 0)),
    "Gaussian, 1 dimension, 0.9": (tell_gaussian(1, 0.9), draw_gaussian(1, 0.9)),
    "Gaussian, 5 dimensions, 0.5": (tell_gaussian(5, 0.5), draw_gaussian(5, 0.5)),
    "Gaussian, 5 dimensions, 0.9": (tell_gaussian(5, 0.9), draw_gaussian(5, 0.9)),
    "Gaussian, 10 dimensions, 0.8": (tell_gaussian(10, 0.8), draw_gaussian(10, 0.8)),
    "the same as 5, 0.9 with heavy tails": (tell_gaussian(5, 0.9), draw_gaussian(5, 0.9, heavy=True)),
}
"""by name: the mutual information in nats, and how pairs are drawn"""


def measure(draw: Draw, n: int, seed: int) -> Found:
    """Return what is found in n pairs."""
    z, v = (torch.from_numpy(each) for each in draw(n, seed))
    return find_partners(z, v, cut_into_halves(range(n), seed), seed)


def main(seeds: int, sizes: list[int]) -> None:
    """Print the table in Markdown."""
    last = f"of {CANDIDATES} at n = {sizes[-1]}"
    print(f"| samples | known (nats) | {' | '.join(f'n = {n}' for n in sizes)} | found, {last} (%) |")
    print("|---" * (3 + len(sizes)) + "|")
    for name, (known, draw) in CASES.items():
        cells, found = [], []
        for n in sizes:
            found = [measure(draw, n, seed) for seed in range(seeds)]
            nats = np.array([each.share for each in found]) * CEILING
            cells.append(f"{nats.mean():.2f} ± {nats.std(ddof=1):.2f}")
        retrieval = 100 * np.array([each.retrieval for each in found])
        cells.append(f"{retrieval.mean():.1f} ± {retrieval.std(ddof=1):.1f}")
        print(f"| {name} | {known:.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    chosen = parser.parse_args()
    main(chosen.seeds, chosen.sizes)

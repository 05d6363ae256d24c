"""Coverage and false positives of the interval that the verdict rests on, by simulated experiments.

    python benchmarks/simulate_statistics.py [repetitions] [numbers of seeds]

Each repetition is a whole experiment with new seeds and new test examples. An example is answered correctly
when a normal score is above 0 (a probit model, whose mean accuracy is known exactly); the score sums the
example's difficulty, which both methods share, the method's own taste in examples, the seed's effect, the
seed's effect on this method, and noise. Prints, in percent:

    covers       intervals of `paired_bootstrap` that cover the true difference
    p < 0.05     `paired_bootstrap` says that there is a difference (where there is none: false positives)
    seeds only   coverage of Student's t over the seeds' differences, which keeps the test set fixed
    percentile   coverage of the plain percentile interval of the crossed bootstrap (first repetitions)
    McNemar      McNemar's test of the first seed says that there is a difference (first repetitions)
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import t as student_t

from cotdistill.analysis.crossed import paired_bootstrap
from cotdistill.analysis.paired import holm, mcnemar_p

RESAMPLES = 499
COMPARED = 300
"""repetitions of the two slow columns, which are there for comparison alone"""
NAMES = ("covers", "p < 0.05", "seeds only", "percentile", "McNemar")
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """Accuracy of the baseline, the true difference, and standard deviations of the parts of a score."""

    accuracy: float
    difference: float
    difficulty: float = 1.5
    taste: float = 0.4
    seed: float = 0.05
    seed_method: float = 0.05

    def draw(self, n: int, m: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Correct or not, seeds x examples, of the proposed method and of the baseline."""
        parts = (self.difficulty, self.taste, self.seed, self.seed_method)
        spread = np.sqrt(1 + sum(part**2 for part in parts))
        shared = self.difficulty * rng.normal(size=m) + self.seed * rng.normal(size=(n, 1))
        answers = []
        for accuracy in (self.accuracy + self.difference, self.accuracy):
            own = self.taste * rng.normal(size=m) + self.seed_method * rng.normal(size=(n, 1))
            answers.append(spread * ndtri(accuracy) + shared + own + rng.normal(size=(n, m)) > 0)
        return answers[0], answers[1]


WORLDS = {
    "no effect": World(0.65, 0.0),
    "no effect, seeds alike": World(0.65, 0.0, seed=0.0, seed_method=0.0),
    "no effect, noise alone": World(0.65, 0.0, taste=0.0, seed=0.0, seed_method=0.0),
    "no effect, seeds differ": World(0.65, 0.0, difficulty=1.0, taste=0.3, seed=0.1, seed_method=0.2),
    "4 points": World(0.62, 0.04, seed_method=0.08),
    "2 points, near the top": World(0.93, 0.02, taste=0.5, seed=0.0, seed_method=0.08),
}


def simulate(world: World, n: int, m: int, repetitions: int, rng: np.random.Generator) -> dict[str, float]:
    """Shares of the repetitions, by the names in this module's docstring."""
    seed_counts = rng.multinomial(n, np.full(n, 1 / n), size=200) / n
    example_counts = rng.multinomial(m, np.full(m, 1 / m), size=200) / m
    quantile = student_t.ppf(1 - ALPHA / 2, n - 1)
    counts = dict.fromkeys(NAMES, 0)
    for repetition in range(repetitions):
        ours, theirs = world.draw(n, m, rng)
        matrix = ours.astype(np.float64) - theirs
        found = paired_bootstrap(matrix, rng, RESAMPLES)
        counts["covers"] += found.low - 1e-12 <= world.difference <= found.high + 1e-12
        counts["p < 0.05"] += found.p < ALPHA
        means = matrix.mean(axis=1)
        half = quantile * means.std(ddof=1) / np.sqrt(n)
        counts["seeds only"] += abs(means.mean() - world.difference) <= half
        if repetition < COMPARED:
            low, high = np.quantile(((seed_counts @ matrix) * example_counts).sum(axis=1), [0.025, 0.975])
            counts["percentile"] += low <= world.difference <= high
            counts["McNemar"] += mcnemar_p(ours[0], theirs[0]) < ALPHA
    slow = min(repetitions, COMPARED)
    return {
        name: count / (slow if name in ("percentile", "McNemar") else repetitions)
        for name, count in counts.items()
    }


def any_false(worlds: list[World], n: int, m: int, repetitions: int, rng: np.random.Generator) -> float:
    """Share of experiments over several datasets without effect where Holm's p is below 0.05 on any."""
    count = 0
    for _ in range(repetitions):
        p_values = []
        for world in worlds:
            ours, theirs = world.draw(n, m, rng)
            p_values.append(paired_bootstrap(ours.astype(np.float64) - theirs, rng, RESAMPLES).p)
        count += min(holm(p_values)) < ALPHA
    return count / repetitions


def _parse_count(text: str) -> int:
    """Parse a number of 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of 1 or more")
    return int(text)


def main() -> None:
    """Simulate every world, and print a line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("repetitions", type=_parse_count, nargs="?", default=2_000,
                        help="simulated experiments a row (default: %(default)s)")  # fmt: skip
    parser.add_argument("seeds", type=_parse_count, nargs="*", help="numbers of seeds (default: 2 3 5 10)")
    options = parser.parse_args()
    repetitions, sizes = options.repetitions, options.seeds or [2, 3, 5, 10]
    print(f"{repetitions} repetitions a row, {RESAMPLES} resamples each; percent")
    print(f"{'world':<26}{'seeds':>6}{'test':>6}" + "".join(f"{name:>12}" for name in NAMES))
    for n in sizes:
        for m in (100, 200, 1000):
            for name, world in WORLDS.items():
                rng = np.random.default_rng([n, m, list(WORLDS).index(name)])
                shares = simulate(world, n, m, repetitions, rng)
                row = "".join(f"{100 * shares[key]:>12.1f}" for key in NAMES)
                print(f"{name:<26}{n:>6}{m:>6}{row}", flush=True)
    nulls = [world for name, world in WORLDS.items() if name.startswith("no effect")]
    print("any false positive on four datasets, Holm's correction:")
    for n in sizes:
        share = any_false(nulls, n, 200, repetitions, np.random.default_rng(n))
        print(f"{'':<26}{n:>6}{200:>6}{100 * share:>12.1f}", flush=True)


if __name__ == "__main__":
    main()

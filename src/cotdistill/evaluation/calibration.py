"""Calibration: is a student that is sure 80% of the time right 80% of the time? NumPy alone.

A confidence c in [0, 1] belongs to an answer that is correct (1) or not (0). There are two:

- `sequence`: the probability of the generated sequence. It exists for every dataset; with an open label
  set it is the only one. The Brier score and the negative log-likelihood are those of the binary event
  "the answer is correct": mean (c - correct)^2, in [0, 1], and mean -ln(c if correct else 1 - c), in nats.
- `options`: a closed label set's probabilities p over the distinct options, confidence max p, correct when
  the likeliest option is gold (the first of equals). Here both scores are multiclass: mean over examples of
  sum_k (p_k - [k is gold])^2, in [0, 2] (Brier 1950), and mean -ln p_gold, in nats. p is made of summed
  log-likelihoods; made of their means per token (`evaluation.option_scores`) it is another confidence, and
  what is measured of it is named `options_mean`.

So the two kinds' Brier scores and likelihoods have different scales and must not be compared. The expected
calibration error is sum over bins of |bin|/n * |accuracy - mean confidence| (Guo et al. 2017, eq. 5). Bins of
equal width are ((m-1)/M, m/M], the first with 0. Bins of equal mass hold n/M examples each, up to one
(Nixon et al. 2019, adaptive); equal confidences share a bin, so that the order of examples does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cotdistill.config.models import OptionScore
from cotdistill.runs.documents import Answer

SMALLEST = float(np.finfo(np.float64).tiny)
"""a probability of 0 that came true counts as this much: at most 708 nats"""
NEAREST = 2.0**-24
"""likewise 1 - c = 0, as float32 has no number between 1 - 2**-24 and 1: at most 16.6 nats"""


OPTIONS: dict[OptionScore, str] = {"sum": "options", "mean": "options_mean"}
"""the name of what is measured of options' probabilities, by the score that they are made of"""


def measure(answers: Sequence[Answer], bins: int, score: OptionScore = "sum") -> dict[str, Any]:
    """Return `{"sequence": C, "options": C}`; `options` only where every answer has probabilities of options.

    score: what these probabilities are made of: those of means per token are `options_mean`.

    C: n, bins, accuracy, mean_confidence, ece_width, ece_mass, brier, nll, and `reliability` and
    `reliability_mass`, the bins behind the two errors. All but n and bins are None without examples, and the
    bins are empty.
    """
    confidence = np.array([answer.confidence for answer in answers])
    correct = np.array([answer.correct for answer in answers], dtype=bool)
    found = {"sequence": _summarise(confidence, correct, bins, brier(confidence, correct),
                                  nll(confidence, correct))}  # fmt: skip
    if answers and all(answer.option_probabilities for answer in answers):
        found[OPTIONS[score]] = _measure_options(answers, bins)
    return found


def brier(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return (n,) squared differences of confidence (n,) and correctness (n,)."""
    return (confidence - correct) ** 2


def nll(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return (n,) -ln(c) where the answer of confidence c is correct, else -ln(1 - c), in nats."""
    happened = np.where(correct, np.maximum(confidence, SMALLEST), np.maximum(1 - confidence, NEAREST))
    return -np.log(happened)


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int, *, mass: bool = False) -> float:
    """Return the expected calibration error in [0, 1], with `bins` bins of equal width, or of equal mass.

    confidence, correct: (n,) with n > 0.
    """
    return _average_gap(reliability(confidence, correct, bins, mass=mass))


def reliability(
    confidence: np.ndarray, correct: np.ndarray, bins: int, *, mass: bool = False
) -> list[dict[str, float]]:
    """Return the bins that hold examples: low, high (edges), n, confidence and accuracy (means).

    mass: cut bins of equal mass, instead of equal width.
    """
    edges = _compute_mass_edges(confidence, bins) if mass else np.arange(1, bins + 1) / bins
    place = np.searchsorted(edges, confidence, side="left")
    rows = []
    for number in np.unique(place):
        inside = place == number
        rows.append({
            "low": float(edges[number - 1]) if number else 0.0, "high": float(edges[number]),
            "n": int(inside.sum()), "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        })  # fmt: skip
    return rows


def _compute_mass_edges(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bins' upper edges: the last confidence of each of `bins` parts of the sorted ones."""
    parts = np.array_split(np.sort(confidence), bins)
    return np.unique([part[-1] for part in parts if len(part)])


def _average_gap(rows: list[dict[str, float]]) -> float:
    n = sum(row["n"] for row in rows)
    return sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / n


def _measure_options(answers: Sequence[Answer], bins: int) -> dict[str, Any]:
    confidence, correct, square, surprise = [], [], [], []
    for answer in answers:
        probabilities = np.array(answer.option_probabilities)
        gold = np.array([option == answer.gold for option in answer.options], dtype=float)
        best = int(probabilities.argmax())
        confidence.append(probabilities[best])
        correct.append(bool(gold[best]))
        square.append(((probabilities - gold) ** 2).sum())
        surprise.append(-np.log(max(float(probabilities @ gold), SMALLEST)))
    arrays = [np.array(values) for values in (confidence, correct, square, surprise)]
    return _summarise(arrays[0], arrays[1], bins, arrays[2], arrays[3])


def _summarise(
    confidence: np.ndarray, correct: np.ndarray, bins: int, square: np.ndarray, surprise: np.ndarray
) -> dict[str, Any]:
    n = len(confidence)
    if not n:
        names = ("accuracy", "mean_confidence", "ece_width", "ece_mass", "brier", "nll")
        return {"n": 0, "bins": bins, **dict.fromkeys(names), "reliability": [], "reliability_mass": []}
    width = reliability(confidence, correct, bins)
    mass = reliability(confidence, correct, bins, mass=True)
    return {
        "n": n, "bins": bins, "accuracy": float(correct.mean()), "mean_confidence": float(confidence.mean()),
        "ece_width": _average_gap(width), "ece_mass": _average_gap(mass), "brier": float(square.mean()),
        "nll": float(surprise.mean()), "reliability": width, "reliability_mass": mass,
    }  # fmt: skip

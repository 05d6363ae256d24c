"""Choose among the options of a closed label set by their log-likelihoods, in two ways. Needs no torch.

An option of T tokens, its end token among them, has the log-likelihood L = ln p(option | input), in nats:

- `sum`: L. exp(L) is the probability that the student writes exactly this option; divided by the sum of all
  options' it is that of the option, given that one of them is written. Each further token costs, as in any
  product of probabilities: a student that has not learned the labels prefers the option of fewest tokens.
- `mean`: L / T, nats a token, as zero-shot choice among answers is often scored (Brown et al. 2020, section
  2.4). It does not favour an option for being short, but is no probability: exp(L / T) is the geometric mean
  of the tokens' probabilities. Dividing makes scores flatter, and by another factor for each option, so the
  calibration errors of the two are those of two different confidences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from cotdistill.config.models import OptionScore
from cotdistill.runs.documents import Answer

KINDS: tuple[OptionScore, ...] = get_args(OptionScore)


def compute_scores(answer: Answer, kind: OptionScore) -> list[float]:
    """Return the score of each option of an answer, in nats (of `mean`: a token); [] without options."""
    sums = answer.option_log_likelihoods
    if kind == "sum":
        return list(sums)
    return [total / tokens for total, tokens in zip(sums, answer.option_tokens, strict=True)]


def normalise(scores: Sequence[float]) -> list[float]:
    """Return probabilities in proportion to exp(score), with a sum of 1.

    scores: natural logarithms, up to a common constant.
    """
    highest = max(scores, default=0.0)
    parts = [math.exp(score - highest) for score in scores]
    total = math.fsum(parts)
    return [part / total for part in parts]


def add_probabilities(answers: Sequence[Answer], kind: OptionScore) -> list[Answer]:
    """Return the answers with the probabilities of their options by one of the scores."""
    return [replace(each, option_probabilities=normalise(compute_scores(each, kind))) for each in answers]


def measure(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what each score chooses: `{"sum": C, "mean": C, "gold": G}`; {} unless all answers have options.

    C: n, accuracy (the share of examples whose option of highest score, the first of equals, is the gold
    label), n_unequal (examples whose options differ in number of tokens), and shortest: the share of these in
    which an option of fewest tokens is chosen, None without such examples. G: the same of the gold label.
    """
    if not answers or not all(answer.option_log_likelihoods for answer in answers):
        return {}
    found: dict[str, Any] = {}
    for kind in KINDS:
        scores = [compute_scores(answer, kind) for answer in answers]
        chosen = [answer.options[own.index(max(own))] for answer, own in zip(answers, scores, strict=True)]
        right = sum(label == answer.gold for answer, label in zip(answers, chosen, strict=True))
        found[kind] = {"n": len(answers), "accuracy": right / len(answers), **_count_short(answers, chosen)}
    return found | {"gold": _count_short(answers, [answer.gold for answer in answers])}


def _count_short(answers: Sequence[Answer], labels: Sequence[str]) -> dict[str, Any]:
    """Return how often the label of an answer is one of its shortest options, where others are longer."""
    found = []
    for answer, label in zip(answers, labels, strict=True):
        tokens = dict(zip(answer.options, answer.option_tokens, strict=True))
        if len(set(tokens.values())) > 1:
            found.append(tokens.get(label) == min(tokens.values()))
    return {"n_unequal": len(found), "shortest": sum(found) / len(found) if found else None}

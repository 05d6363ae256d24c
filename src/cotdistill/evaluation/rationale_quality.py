"""How good generated rationales are: likeness to the teacher's, repetition, and agreement with the label.

sacrebleu is imported where needed, and torch not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cotdistill.data.answers import matches
from cotdistill.evaluation import rouge
from cotdistill.runs.documents import Answer

Reader = Callable[[str, list[str]], str]
"""an adapter's `stated_label`: the label that a rationale states, of these options; empty for none"""

GRAM = 4
"""words of the n-grams whose repetition is counted"""


def measure(answers: Sequence[Answer], kind: str, stated_label: Reader) -> dict[str, Any] | None:
    """Return numbers over the test rationales; None where no answer has one. A number over nothing is None.

    n: rationales; n_teacher: of them with a teacher's beside it, over which `bleu` (corpus BLEU, 0 to 100,
    with `bleu_signature`), `rouge1`, `rouge2`, `rougeL` (mean F1, 0 to 1, with `rouge_signature`) and
    `words_teacher` are taken. words: mean number of words, apart at white space. repetition: see
    `measure_repetition`, mean over n. states_label: fraction of n in which `stated_label` finds a label;
    faithful_prediction, faithful_gold: of these, the fractions in which it is the run's own prediction, and
    the gold label, compared as answers of this `kind` are.
    """
    rows = [answer for answer in answers if answer.rationale is not None]
    if not rows:
        return None
    texts = [row.rationale or "" for row in rows]
    pairs = [(row.rationale or "", row.teacher_rationale) for row in rows if row.teacher_rationale]
    return {
        "n": len(rows), "n_teacher": len(pairs), **_measure_likeness(pairs),
        "words": _mean([len(text.split()) for text in texts]),
        "words_teacher": _mean([len(teachers.split()) for _, teachers in pairs]),
        "repetition": _mean([measure_repetition(text) for text in texts]),
        **_measure_faithfulness(rows, kind, stated_label),
    }  # fmt: skip


def measure_repetition(text: str) -> float:
    """Return seq-rep-4 of a text: 1 - distinct / all 4-grams of words; 0 where there is no 4-gram.

    Welleck et al. 2020, section 6.
    """
    words = text.split()
    grams = [tuple(words[start : start + GRAM]) for start in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _measure_likeness(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU()
    own, teachers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    result = bleu.corpus_score(own, [teachers]) if pairs else None
    words = [(rouge.tokenise(first), rouge.tokenise(second)) for first, second in pairs]
    return {
        "bleu": result.score if result else None,
        "bleu_signature": str(bleu.get_signature()) if result else None,
        "rouge1": _mean([rouge.rouge_n(*pair, 1) for pair in words]),
        "rouge2": _mean([rouge.rouge_n(*pair, 2) for pair in words]),
        "rougeL": _mean([rouge.rouge_l(*pair) for pair in words]),
        "rouge_signature": rouge.SIGNATURE,
    }


def _measure_faithfulness(rows: Sequence[Answer], kind: str, stated_label: Reader) -> dict[str, float | None]:
    stated = [(row, stated_label(row.rationale or "", row.options)) for row in rows]
    stated = [(row, label) for row, label in stated if label]
    golds = [matches(kind, label, row.gold) for row, label in stated]
    # a correct prediction is the gold label as the tokenizer spells it
    own = [(row.correct and gold) or matches(kind, label, row.prediction)
           for (row, label), gold in zip(stated, golds, strict=True)]  # fmt: skip
    return {
        "states_label": len(stated) / len(rows),
        "faithful_prediction": _mean(own),
        "faithful_gold": _mean(golds),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

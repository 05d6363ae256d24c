"""How good generated rationales are: likeness to the teacher's, repetition, and agreement with the label.

sacrebleu is imported where needed, and torch not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cotdistill.common.text_units import has_unspaced, space_out, split_units
from cotdistill.data.answers import is_right
from cotdistill.evaluation import rouge
from cotdistill.runs.documents import Answer

Reader = Callable[[str, list[str]], str]
"""an adapter's `stated_label`: the label that a rationale states, of these options; empty for none"""

GRAM = 4
"""words of the n-grams whose repetition is counted, and of the longest that BLEU counts"""

TEACHERS = "teacher's rationales"


def measure(
    answers: Sequence[Answer], kind: str, stated_label: Reader, open_labels: bool = True
) -> dict[str, Any] | None:
    """Return numbers over the test rationales; None where no answer has one. A number over nothing is None.

    n: rationales; n_teacher: of them with a teacher's beside it, over which `bleu` (corpus BLEU, 0 to 100,
    with `bleu_signature`), `rouge1`, `rouge2`, `rougeL` (mean F1, 0 to 1, with `rouge_signature`) and
    `words_teacher` are taken. words: mean number of words, apart at white space, and characters of scripts
    without spaces (`split_units`). repetition: see `measure_repetition`, mean over the rationales that are
    long enough. states_label: fraction of n in which `stated_label` finds a label; faithful_prediction,
    faithful_gold: of these, the fractions in which it is the run's own prediction, and the gold label,
    compared as answers of this `kind` are. reasons: why a number is None, and over how many rationales one is
    that some are too short for, by name; absent where there is nothing to say.

    open_labels: whether `stated_label` can read a label where an answer has no options to choose from.
    """
    rows = [answer for answer in answers if answer.rationale is not None]
    if not rows:
        return None
    reasons: dict[str, str] = {}
    texts = [row.rationale or "" for row in rows]
    pairs = [(row.rationale or "", row.teacher_rationale) for row in rows if row.teacher_rationale]
    teachers = [teacher for _, teacher in pairs]
    few = f"fewer than {GRAM} words"
    found = {
        "n": len(rows), "n_teacher": len(pairs), **_measure_likeness(pairs, reasons),
        "words": _mean_known("words", map(_count_words, texts), "rationales", "no word", reasons),
        "words_teacher": _mean_known("words_teacher", map(_count_words, teachers), TEACHERS, "no word",
                                     reasons),
        "repetition": _mean_known("repetition", map(measure_repetition, texts), "rationales", few, reasons),
        **_measure_faithfulness(rows, kind, stated_label, open_labels, reasons),
    }  # fmt: skip
    return found | ({"reasons": reasons} if reasons else {})


def measure_repetition(text: str) -> float | None:
    """Return seq-rep-4 of a text: 1 - distinct / all 4-grams of words; None where there is no 4-gram.

    Welleck et al. 2020, section 6. Words are those of `split_units`.
    """
    words = split_units(text)
    grams = [tuple(words[start : start + GRAM]) for start in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def _count_words(text: str) -> int | None:
    """Return the number of words; None for a text that has none although it is not empty, such as emoji."""
    return len(split_units(text)) or (None if text.strip() else 0)


def _measure_likeness(pairs: Sequence[tuple[str, str]], reasons: dict[str, str]) -> dict[str, Any]:
    words = [(rouge.tokenise(first), rouge.tokenise(second)) for first, second in pairs]
    found: dict[str, Any] = _measure_bleu(
        [pair for pair, (_, teachers) in zip(pairs, words, strict=True) if teachers], reasons
    )
    for name, least, score in (
        ("rouge1", 1, lambda own, teachers: rouge.rouge_n(own, teachers, 1)),
        ("rouge2", 2, lambda own, teachers: rouge.rouge_n(own, teachers, 2)),
        ("rougeL", 1, rouge.rouge_l),
    ):
        scores = [score(own, teachers) if len(teachers) >= least else None for own, teachers in words]
        few = "no word" if least == 1 else f"fewer than {least} words"
        found[name] = _mean_known(name, scores, TEACHERS, few, reasons)
    return {**found, "rouge_signature": rouge.describe(text for pair in pairs for text in pair)}


def _measure_bleu(pairs: Sequence[tuple[str, str]], reasons: dict[str, str]) -> dict[str, Any]:
    """Return corpus BLEU by sacrebleu's tokenizer 13a, once characters of scripts without spaces stand apart.

    On a text without such characters that is 13a itself, so one rule holds for all languages and mixtures.
    """
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU()
    own, teachers = [space_out(pair[0]) for pair in pairs], [space_out(pair[1]) for pair in pairs]
    if not any(len(bleu.tokenizer(text).split()) >= GRAM for text in teachers):
        reasons["bleu"] = f"no teacher's rationale with words has {GRAM} tokens"
        return {"bleu": None, "bleu_signature": None}
    score = bleu.corpus_score(own, [teachers]).score
    apart = any(has_unspaced(text) for pair in pairs for text in pair)
    signature = str(bleu.get_signature()) + ("|characters of scripts without spaces apart" if apart else "")
    return {"bleu": score, "bleu_signature": signature}


def _measure_faithfulness(
    rows: Sequence[Answer], kind: str, stated_label: Reader, open_labels: bool, reasons: dict[str, str]
) -> dict[str, float | None]:
    readable = [row for row in rows if open_labels or row.options]
    if not readable:
        why = "no answer has options, and what is no option cannot be told from other words"
        names = ("states_label", "faithful_prediction", "faithful_gold")
        reasons.update(dict.fromkeys(names, why))
        return dict.fromkeys(names)
    stated = [(row, stated_label(row.rationale or "", row.options)) for row in readable]
    stated = [(row, label) for row, label in stated if label]
    golds = [is_right(kind, label, row.gold) for row, label in stated]
    # a correct prediction is the gold label as the tokenizer spells it
    own = [(row.correct and gold) or is_right(kind, label, row.prediction)
           for (row, label), gold in zip(stated, golds, strict=True)]  # fmt: skip
    if not stated:
        reasons.update(dict.fromkeys(("faithful_prediction", "faithful_gold"), "no rationale states a label"))
    return {
        "states_label": len(stated) / len(readable),
        "faithful_prediction": _mean(own),
        "faithful_gold": _mean(golds),
    }


def _mean_known(
    name: str, values: Iterable[float | None], what: str, lacking: str, reasons: dict[str, str]
) -> float | None:
    """Return the mean of the values that are known; say in `reasons` where some are not, or all.

    what: the texts that there is a value of each; lacking: what those without one have.
    """
    found = list(values)
    known = [value for value in found if value is not None]
    if not found:
        reasons[name] = f"there are no {what}"
    elif len(known) < len(found):
        reasons[name] = f"{len(found) - len(known)} of {len(found)} {what} are left out: {lacking}"
    return _mean(known)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

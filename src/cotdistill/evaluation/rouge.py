"""ROUGE (Lin 2004) between a generated and a reference text: F1 of n-grams, and of common subsequences.

On texts in ASCII tokens and numbers are those of the package rouge-score without stemming (a test compares
them). It is not used itself: it drops every letter beyond a to z, so that two equal Chinese texts have 0, and
importing it (and NLTK) costs several times what an evaluation costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cotdistill.common.text_units import find_words

SIGNATURE = "F1, lower case, [a-z0-9]+ tokens, no stemming, as rouge-score 0.1.2"
UNICODE_SIGNATURE = (
    "F1, lower case, runs of letters, digits and marks as tokens, of scripts without spaces each character, "
    "no stemming; on ASCII as rouge-score 0.1.2"
)


def tokenise(text: str) -> list[str]:
    """Return the words of a text in lower case, see `find_words`; in ASCII runs of letters and digits."""
    return find_words(text)


def describe(texts: Iterable[str]) -> str:
    """Return the signature of numbers over these texts: one rule, said in fewer words where all is ASCII."""
    return SIGNATURE if all(text.isascii() for text in texts) else UNICODE_SIGNATURE


def rouge_n(generated: list[str], reference: list[str], n: int) -> float:
    """Return the F1 of the n-grams of two token lists, counted with repetitions; 0 where a text has none."""
    own, wanted = _count_grams(generated, n), _count_grams(reference, n)
    return _f1((own & wanted).total(), own.total(), wanted.total())


def rouge_l(generated: list[str], reference: list[str]) -> float:
    """Return the F1 of the longest common subsequence of two token lists; 0 where one is empty."""
    return _f1(_measure_common(generated, reference), len(generated), len(reference))


def _count_grams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _measure_common(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence of two token lists.

    A row of the usual table of lengths is the bits of one integer (Hyyrö 2004): a zero marks where the length
    grows.
    """
    where: dict[str, int] = {}
    for place, word in enumerate(first):
        where[word] = where.get(word, 0) | 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        both = row & where.get(word, 0)
        row = (row + both | row - both) & everywhere
    return len(first) - row.bit_count()


def _f1(common: int, generated: int, reference: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / generated, common / reference
    return 2 * precision * recall / (precision + recall)

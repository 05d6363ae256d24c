"""Measure what the splits of a dataset share: repeated inputs, near duplicates and groups.

How an input of one split may stand in another split:

- `same`: the same text, white space aside;
- `masked`: the same words in the same order, in any case and punctuation; all numbers count as one word;
- `near`: word sets with a Jaccard similarity (words in both / words in either) of at least 4/5, numbers as
  one word. Each of these includes those before it;
- `body`: all but the last sentence has the same words in the same order, numbers as one word: one story with
  another question, one premise with another hypothesis. Inputs of one sentence do not count;
- `grouped`: the rows name a group, and it is the same one.

Near duplicates are found exactly, without comparing all pairs, by prefix filtering (Chaudhuri, Ganti and
Kaushik 2006; Bayardo, Ma and Srikant 2007): two sets that are so similar share one of their few rarest words.
Valid and test are indexed and train is read through once, so memory hardly grows with train.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cotdistill.common.text_units import find_words
from cotdistill.data.adapter import EOS

PAIRS = (("valid", "train"), ("test", "train"), ("test", "valid"))
"""(split, other): the rows of `split` are looked up in `other`"""
KINDS = ("same", "masked", "body", "near", "grouped")
MOST_LOOKED_AT = 100_000_000
"""word sets, for one pair of splits: some half a minute, five times what e-SNLI takes. Texts of one long
template, which have their rarest words in common, could take as many as there are pairs of rows"""

_SENTENCE_END = re.compile(rf"(?<=[.?!])\s+|(?<=[\u3002\uff01\uff1f])\s*|{EOS}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Inputs:
    """What is compared of a split, a value a row; its group is '' where the row names none."""

    ids: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[str]


@dataclass(frozen=True)
class Shared:
    """How many rows of `split` have their like in `other`, by kind; see the module."""

    split: str
    other: str
    rows: int
    """of `split`"""
    same: int
    masked: int
    body: int
    near: int | None
    """None where it would have taken more than MOST_LOOKED_AT"""
    grouped: int | None
    """None where one of the splits names no group"""
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    """by kind, the ids of a row of `split` and of its like in `other`: the first that was found"""

    @property
    def counts(self) -> dict[str, int | None]:
        """The counts, by kind."""
        return {kind: getattr(self, kind) for kind in KINDS}


@dataclass(frozen=True)
class Overlap:
    """What the splits of a dataset share."""

    rows: dict[str, int]
    repeated: dict[str, int]
    """rows by split whose input stands in an earlier row of the same split, white space aside"""
    groups: dict[str, int]
    """distinct groups by split"""
    shared: tuple[Shared, ...]
    """in the order of PAIRS"""


def measure_overlap(splits: Mapping[str, Inputs]) -> Overlap:
    """Return what the splits train, valid and test share. Time grows with their words, memory does not."""
    finders = [_Finder(split, other, splits[split]) for split, other in PAIRS]
    for other, inputs in splits.items():
        asked = [finder for finder in finders if finder.other == other]
        for row, text in enumerate(inputs.texts if asked else ()):
            keys = _list_keys(text)
            for finder in asked:
                finder.look_up(row, keys)
    return Overlap(
        {split: len(inputs.texts) for split, inputs in splits.items()},
        {split: len(inputs.texts) - len(set(map(_strip, inputs.texts))) for split, inputs in splits.items()},
        {split: len(set(inputs.groups) - {""}) for split, inputs in splits.items()},
        tuple(finder.count(splits[finder.other]) for finder in finders),
    )


def list_masked_words(text: str) -> list[str]:
    """Return the words of a text with each number replaced by 0; the text itself where it has no word."""
    return find_words(_NUMBER.sub("0", text.replace(EOS, " "))) or [_strip(text)]


def is_near(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether the Jaccard similarity of two sets that are not empty is at least 4/5."""
    both = len(one & other)
    # in whole numbers, as 0.8 is none that a float can hold
    return 5 * both >= 4 * (len(one) + len(other) - both)


def _strip(text: str) -> str:
    return " ".join(text.split())


def _list_keys(text: str) -> dict[str, Any]:
    """Return, by kind, what two inputs must have in common, or be near in; None where one has none."""
    words = list_masked_words(text)
    *body, _ = [part for part in _SENTENCE_END.split(text) if part.strip()] or [text]
    return {
        "same": _strip(text),
        "masked": tuple(words),
        "body": tuple(list_masked_words(" ".join(body))) if body else None,
        "near": frozenset(words),
    }


class _Finder:
    """The rows of one split, and how many of them were met in another one."""

    def __init__(self, split: str, other: str, inputs: Inputs) -> None:
        self.split, self.other, self.inputs = split, other, inputs
        self.places: dict[str, dict[Any, list[int]]] = {kind: {} for kind in KINDS if kind != "grouped"}
        """by kind and key, the rows that were not met yet"""
        for row, text in enumerate(inputs.texts):
            for kind, key in _list_keys(text).items():
                self.places[kind].setdefault(key, []).append(row)
        self.sets = _WordSets(self.places["near"])
        self.met = dict.fromkeys(self.places, 0)
        self.pairs: dict[str, tuple[int, int]] = {}
        """by kind, the first row of the other split that was met, behind the row that it is the like of"""

    def look_up(self, row: int, keys: dict[str, Any]) -> None:
        """Note which rows are the like of a row of the other split that has these keys."""
        for kind, key in keys.items():
            near = self.sets.find_new(key) if kind == "near" else [key]
            found = [place for each in near if each is not None for place in self.places[kind].pop(each, ())]
            if found:
                self.met[kind] += len(found)
                self.pairs.setdefault(kind, (min(found), row))

    def count(self, other: Inputs) -> Shared:
        """Return the counts. other: all of the other split."""
        known = set(other.groups) - {""}
        grouped = [row for row, group in enumerate(self.inputs.groups) if group in known]
        if grouped:
            first = self.inputs.groups[grouped[0]]
            self.pairs["grouped"] = (grouped[0], list(other.groups).index(first))
        examples = {kind: (self.inputs.ids[row], other.ids[like]) for kind, (row, like) in self.pairs.items()}
        return Shared(
            self.split,
            self.other,
            rows=len(self.inputs.texts),
            same=self.met["same"],
            masked=self.met["masked"],
            body=self.met["body"],
            near=None if self.sets.gave_up else self.met["near"],
            grouped=len(grouped) if known and any(self.inputs.groups) else None,
            examples=examples,
        )


class _WordSets:
    """Distinct sets of words, found by others that are near them; each is found once."""

    def __init__(self, sets: Iterable[frozenset[str]]) -> None:
        self.new = set(sets)
        counts = Counter(word for words in self.new for word in words)
        rarest_first = sorted(counts, key=lambda word: (counts[word], word))
        self.rank = {word: rank for rank, word in enumerate(rarest_first)}
        self.by_rank: dict[int, list[tuple[frozenset[str], int, int]]] = {}
        """by the rank of each of a set's rarest words: the set, its size, and its words from this one on"""
        for words in self.new:
            for place, rank in self._select_rarest(words):
                self.by_rank.setdefault(rank, []).append((words, len(words), len(words) - place))
        self.looked_at = 0

    @property
    def gave_up(self) -> bool:
        """Whether there was too much to look at, so that sets may be left that were not found."""
        return self.looked_at >= MOST_LOOKED_AT

    def find_new(self, words: frozenset[str]) -> list[frozenset[str]]:
        """Return the sets near `words` that were not found before; none once too many were looked at."""
        if self.gave_up:
            return []
        size, found = len(words), []
        for place, rank in self._select_rarest(words):
            left = size - place
            candidates = self.by_rank.get(rank, ())
            self.looked_at += len(candidates)
            for other, other_size, rest in candidates:
                # where this is the first word that both have, they share at most those from here on
                if 9 * (left if left < rest else rest) < 4 * (size + other_size):
                    continue
                if other in self.new and is_near(words, other):
                    self.new.remove(other)
                    found.append(other)
        return found

    def _select_rarest(self, words: frozenset[str]) -> list[tuple[int, int]]:
        """Return (place, rank) of as many of the rarest words as a set near this one must share one of.

        A set with a similarity of 4/5 lacks at most n - ceil(4 n / 5) of the n words, so of that many and one
        more it has one; both sets order their words alike. Words that no set here has come before the others.
        """
        rarest = len(words) - -(-4 * len(words) // 5) + 1
        ranks = sorted([self.rank[word] for word in words if word in self.rank])
        unknown = len(words) - len(ranks)
        return list(enumerate(ranks[: max(rarest - unknown, 0)], start=unknown))

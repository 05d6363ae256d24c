"""Words and units of texts: ASCII as ever, characters of scripts without spaces, words with their marks."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.text_units import find_words, has_unspaced, space_out, split_units

ASCII = st.text(st.characters(codec="ascii"))


@given(ASCII)
def test_ascii_is_cut_as_by_regular_expressions(text: str) -> None:
    assert find_words(text) == re.findall("[a-z0-9]+", text.lower())
    assert find_words(text, "_'") == re.findall(r"[\w']+", text.lower())
    assert split_units(text) == text.split()
    assert space_out(text) == text and not has_unspaced(text)


@given(ASCII, st.sampled_from(["😀", "é", "我", "ท", "\u0301", "\u200d"]))
def test_one_other_character_changes_nothing_of_the_words_around(text: str, odd: str) -> None:
    assert find_words(f"{text} {odd}")[: len(find_words(text))] == find_words(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我喜欢Apple。", ["我", "喜", "欢", "apple"]),
        ("ネコ、ねこ", ["ネ", "コ", "ね", "こ"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("العَرَبِيَّة، نعم", ["العَرَبِيَّة", "نعم"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("Cafe\u0301 ΟΔΟΣ", ["caf\xe9", "οδοσ"]),
        ("\U00020000\U00030001", ["\U00020000", "\U00030001"]),
        ("😀 ❤️ 👨\u200d👩 — …", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    normal = [unicodedata.normalize("NFC", word) for word in words]
    assert find_words(text) == normal and find_words(text, "_'") == normal


@given(st.text())
def test_any_text_is_cut_into_parts_of_itself(text: str) -> None:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    assert all(word and word in folded for word in find_words(text))
    assert "".join(space_out(text).split()) == "".join(unicodedata.normalize("NFC", text).split())

"""Cut a text of any language into the units that measures count and compare, and that options are found by.

Most scripts part their words by spaces, some do not: of those a unit is one character, with the marks that
belong to it. Elsewhere a word is a run of letters and digits with their marks (accents, vowel signs), as in
Hindi, Arabic, Hebrew and Korean. A text in ASCII alone is cut as by the two regular expressions below.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# first and last code points of blocks whose script has no space between words: ideographs, kana, bopomofo
# and Yi, and the scripts of the line breaking class SA (Unicode Standard Annex 14) and Tibetan
_UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303c\u3041-\u30fa\u30fc-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b2ff"
    "\U00020000-\U0003fffd"  # Han, Hiragana, Katakana, Bopomofo, Yi
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff"
    "\uaa60-\uaadf\U00011700-\U0001174f"  # Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Ahom
)
_PUNCTUATION = "\u3001-\u3003\u3008-\u3011\u3014-\u3020\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
"""of Chinese and Japanese, which stands without spaces too"""
_JOINERS = "\u200c\u200d"
"""characters without width that stand within words of Persian, Hindi and others"""
_ASCII_WORD = {"": re.compile(r"[a-z0-9]+"), "_'": re.compile(r"[a-z0-9_']+")}


def find_words(text: str, also: str = "") -> list[str]:
    """Return the words of a text in order, in lower case, composed (NFC), without what stands between them.

    also: characters that count as letters, "" or "_'". Linear in the text.
    """
    if text.isascii():
        return _ASCII_WORD[also].findall(text.lower())
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return _compile_word(also).findall(folded)


def split_units(text: str) -> list[str]:
    """Return the parts of a text between white space; characters of scripts without spaces stand alone.

    Parts in ASCII are all kept; of others those without a letter or digit, such as an emoji, are left out.
    """
    units: list[str] = []
    for part in text.split():
        if part.isascii():
            units.append(part)
            continue
        units += [piece for piece in space_out(part).split() if any(map(str.isalnum, piece))]
    return units


def space_out(text: str) -> str:
    """Return a text with spaces around each character of a script without spaces, and its punctuation."""
    if text.isascii():
        return text
    return _compile_alone().sub(r" \g<0> ", unicodedata.normalize("NFC", text))


def has_unspaced(text: str) -> bool:
    """Return whether `space_out` parts a text at characters of a script without spaces."""
    return not text.isascii() and _compile_alone().search(text) is not None


@cache
def _match_mark() -> str:
    """Return the pattern of a mark that belongs to the character before it; `\\w` has none of them."""
    places = [*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)]
    marks = "".join(chr(place) for place in places if unicodedata.category(chr(place))[0] == "M")
    few, rare = re.sub(r"[^\0-\uffff]", "", marks), re.sub(r"[\0-\uffff]", "", marks)
    # looked up in a table below U+10000, one by one above it: that is kept from texts that have none there
    return rf"(?:[{few}{_JOINERS}]|(?=[^\0-\uffff])[{rare}])"


@cache
def _compile_alone() -> re.Pattern[str]:
    return re.compile(rf"(?=[^\W_])[{_UNSPACED}]{_match_mark()}*|[{_PUNCTUATION}]")


@cache
def _compile_word(also: str) -> re.Pattern[str]:
    letter = rf"(?![{_UNSPACED}])[^\W_]{f'|[{also}]' if also else ''}"
    # a word starts with a letter or digit: a mark on an emoji is no word
    run = rf"(?:{letter})(?:{letter}|{_match_mark()})*"
    return re.compile(rf"(?=[^\W_])[{_UNSPACED}]{_match_mark()}*|{run}")

"""The value of a numeral: Arabic, Chinese or English, with scales and fractions."""

from __future__ import annotations

import re
from fractions import Fraction

from headrace.retrieval.analyze import numeral

CHINESE = "[零〇一二两三四五六七八九十百千万亿]"
ARABIC = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
_SIGNS = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_WORD = "|".join((*sorted(_WORDS, key=len, reverse=True), *_SCALES))
ENGLISH = rf"\b(?:{_WORD})(?:(?:-|\s+and\s+|\s+)(?:{_WORD}))*\b"
"""Any run of English number words; `value` reads it."""

ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10, "half": 2, "quarter": 4,
}  # fmt: skip
"""The words by which English counts places and names the parts of a whole."""


def chinese(text: str) -> Fraction:
    """二十, 一千五百, 三万, 二〇二四, 三点五."""
    whole, point, part = text.partition("点")
    if point and part:
        return chinese(whole) + Fraction(numeral("0" + part.replace("〇", "零")), 10 ** len(part))
    return Fraction(_whole(whole))


def _whole(text: str) -> int:
    for sign in "亿万":
        head, found, tail = text.rpartition(sign)
        if found:
            return (_whole(head) if head else 1) * _SIGNS[sign] + (_whole(tail) if tail else 0)
    return numeral(text)


def english(text: str) -> Fraction:
    """`thirty-five`, `two hundred and ten`, `three million`."""
    total = current = 0
    for word in re.split(r"[\s-]+", text.lower()):
        if word in _WORDS:
            current += _WORDS[word]
        elif word in ("hundred", "dozen"):
            current = (current or 1) * _SCALES[word]
        elif word in _SCALES:
            total += (current or 1) * _SCALES[word]
            current = 0
    return Fraction(total + current)


def value(text: str) -> Fraction:
    """The value of a numeral in any of the three ways, with one scale after it: `1,500`, `1.5万`,
    `3 million`, 三十. Raises `ValueError` for what is none."""
    text = text.strip()
    digits = re.match(ARABIC, text)
    if digits is None:
        return english(text) if text[:1].isascii() else chinese(text)
    number = Fraction(digits.group().replace(",", ""))
    for sign in text[digits.end() :].strip().lower().split():
        if sign in _SCALES:
            number *= _SCALES[sign]
        else:
            for character in sign:
                number *= _SIGNS[character]
    return number

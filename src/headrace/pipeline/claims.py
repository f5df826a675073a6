"""What a sentence claims, taken apart so that each part can be looked up in a source.

A claim is compared by *terms* (the analyzer's tokens without function words), by *facts* (numbers,
dates, article references and identifiers, which must occur as they are) and by whether it denies.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache

from headrace.pipeline.words import (
    BOUND,
    CLAUSE_END,
    DENIAL,
    ENGLISH_NUMBERS,
    EVERYBODY,
    GLUE,
    PERMISSION,
    PROHIBITION,
    STOP,
)
from headrace.retrieval.analyze import numeral, tokens

_STEM_STOP = frozenset(token for word in STOP for token in tokens(word))

_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*%?")
_CHINESE_NUMBER = re.compile(
    r"[零〇一二两三四五六七八九十百千万亿]+(?=[元年月日天时分秒条款项章编节个人次倍周岁米平公吨小户件名份])"
)
_IDENTIFIER = re.compile(r"\b(?=[\w.-]*\d)(?=[\w.-]*[A-Za-z])[\w][\w.-]{2,}\b", re.ASCII)
_QUOTED = re.compile(r"“([^”]{2,})”|\"([^\"]{2,})\"|「([^」]{2,})」|『([^』]{2,})』")
_MARKER = re.compile(r"\s*\[(\d{1,3})\]")

_ENGLISH_NUMBER = re.compile(rf"\b(?:{'|'.join(ENGLISH_NUMBERS)})\b", re.IGNORECASE)


@lru_cache(maxsize=4096)
def terms(text: str) -> frozenset[str]:
    """The analyzer's tokens that carry meaning: no function words, no single CJK character, no
    bigram across the end of a word (定了, 是什)."""
    found = set(tokens(text)) - _STEM_STOP
    return frozenset(
        t for t in found if (len(t) > 1 or t.isdigit()) and not (len(t) == 2 and GLUE & set(t))
    )


def markers(text: str) -> list[int]:
    """The numbers in brackets, in order."""
    return [int(number) for number in _MARKER.findall(text)]


def without_markers(text: str) -> str:
    return _MARKER.sub("", text)


def quoted(text: str) -> list[str]:
    """What stands in quotation marks."""
    return ["".join(groups) for groups in _QUOTED.findall(text)]


def chinese_number(text: str) -> int:
    """The value of a Chinese numeral: 二十, 一千五百, 三万."""
    for sign, value in (("亿", 100_000_000), ("万", 10_000)):
        head, found, tail = text.partition(sign)
        if found:
            return (chinese_number(head) if head else 1) * value + (
                chinese_number(tail) if tail else 0
            )
    return numeral(text)


def facts(text: str) -> frozenset[str]:
    """Numbers (`1,500`, 一千五百 and `fifteen` by value), dates, article references by their
    numbers, and identifiers: what a paraphrase may not change."""
    plain = unicodedata.normalize("NFKC", text)
    found = {match.lower() for match in _IDENTIFIER.findall(plain)}
    rest = _IDENTIFIER.sub(" ", plain)
    found |= {number.replace(",", "") for number in _NUMBER.findall(rest)}
    found |= {str(chinese_number(number)) for number in _CHINESE_NUMBER.findall(rest)}
    found |= {ENGLISH_NUMBERS[word.lower()] for word in _ENGLISH_NUMBER.findall(rest)}
    return frozenset(found)


def denies(text: str) -> bool:
    """Whether the text has a negation; bounds such as `not more than` are none."""
    return bool(DENIAL.search(BOUND.sub(" ", unicodedata.normalize("NFKC", text))))


def coverage(wanted: frozenset[str], there: frozenset[str]) -> float:
    """Share of `wanted` that occurs in `there`, in [0, 1]; longer terms count more, since a
    word's bigrams and a compound's parts repeat what the whole already said."""
    if not wanted:
        return 0.0
    return _weight(wanted & there) / _weight(wanted)


def _weight(some: frozenset[str]) -> float:
    return sum(math.sqrt(len(term)) for term in some)


def contradicts(claim: str, source: str) -> bool:
    """Whether a claim and a source on the same matter differ in what they deny or whom they mean.

    1. The clause of the source that shares most with the claim must deny if the claim denies, and
       affirm if it affirms. 2. A permission is not drawn from a text that prohibits. 3. What is
       claimed of everybody must be said of everybody."""
    wanted = terms(claim)
    clauses = [clause for clause in CLAUSE_END.split(source) if clause.strip()]
    nearest = max(clauses, key=lambda clause: coverage(wanted, terms(clause)), default="")
    denied = denies(claim)
    if denied != denies(nearest):
        return True
    if not denied and PERMISSION.search(claim) and PROHIBITION.search(source):
        return True
    return bool(EVERYBODY.search(claim)) and not EVERYBODY.search(source)

"""Passages that contradict each other: found by rules, named in the answer, both quoted.

Two ranges contradict each other if they say the same but for a number, or but for a denial: the
same terms with another amount of the same unit. That is a narrow rule by intent, since an answer
that cries conflict where there is none is worse than one that quotes both without a word.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from headrace.pipeline import claims
from headrace.pipeline.evidence import Evidence, Passage
from headrace.pipeline.facts import numerals
from headrace.pipeline.facts.reading import denies
from headrace.pipeline.language import language
from headrace.pipeline.words import DENIAL
from headrace.types import Span

SAME = 0.75
"""Share of each range's terms, numbers aside, that the other must have."""

SAME_BUT_DENIED = 0.9
"""The same where the only difference is a denial: in longer sentences one often denies a detail."""

ASKED = 0.5
"""Share of the question's terms that each of them must have, its titles included."""

FEWEST_TERMS = 3
"""Terms that two ranges must share: fewer do not say of what they speak."""

_UNIT = (
    r"(?P<unit>%|‰|°C|[a-z]{1,12}|个?(?:工作日|小时|分钟|分贝|公里|平方米|立方米|周岁|个月)"
    r"|[元角年月日天时分秒周岁米度次倍人户件名份级张])"
)
_AMOUNT = re.compile(
    rf"(?P<number>\d+(?:[.,]\d+)*|[零〇一二两三四五六七八九十百千万亿]+)\s?{_UNIT}", re.IGNORECASE
)
_PROVISION = re.compile(
    r"第[0-9零〇一二三四五六七八九十百千]+[条款项章编节次]|[《(（][^》)）]*[》)）]"
)


class Clash(NamedTuple):
    """Two ranges that contradict each other, and in what: `values` are what each says."""

    one: Evidence
    other: Evidence
    values: tuple[str, str]


class _Range(NamedTuple):
    passage: Passage
    span: Span  # of the passage's own text
    text: str
    terms: frozenset[str]
    amounts: dict[str, frozenset[str]]


def clashes(question: str, sources: Sequence[Passage], most: int = 2) -> list[Clash]:
    """At most `most` contradictions between passages of different documents or places, those on
    the question's matter alone."""
    asked = claims.terms(question)
    ranges = [list(_ranges(passage, asked)) for passage in sources]
    found: list[Clash] = []
    for mine, others in itertools.combinations(ranges, 2):
        pairs = (
            (_difference(one, other), one, other)
            for one, other in itertools.product(mine, others)
            if _same_matter(one, other)
        )
        clash = next((pair for pair in pairs if pair[0] is not None), None)
        if clash is not None:
            values, one, other = clash
            assert values is not None
            found.append(Clash(_evidence(one), _evidence(other), values))
        if len(found) == most:
            break
    return found


def _ranges(passage: Passage, asked: frozenset[str]) -> Iterator[_Range]:
    path = claims.terms(" ".join(passage.hit.path))
    for span in passage.pieces:
        text = span.of(passage.hit.text)
        terms = frozenset(t for t in claims.terms(_subject(text)) if not t.isdigit())
        if (
            len(terms) >= FEWEST_TERMS
            and claims.coverage(asked, claims.terms(text) | path) >= ASKED
        ):
            yield _Range(passage, span, text, terms, amounts_of(text))


def amounts_of(text: str) -> dict[str, frozenset[str]]:
    """The amounts of a text by unit, as digits: `十四日内罚150元` has 14 of 日 and 150 of 元."""
    found: dict[str, set[str]] = {}
    for match in _AMOUNT.finditer(_plain(text)):
        number = match["number"].replace(",", "")
        if not number[0].isdecimal():
            number = str(numerals.value(number))
        found.setdefault(_unit(match["unit"]), set()).add(number)
    return {unit: frozenset(numbers) for unit, numbers in found.items()}


def _unit(written: str) -> str:
    unit = written.lower().removeprefix("个")
    return unit[:-1] if unit.isascii() and len(unit) > 3 and unit.endswith("s") else unit


def _plain(text: str) -> str:
    return _PROVISION.sub(" ", unicodedata.normalize("NFKC", text))


def _subject(text: str) -> str:
    """The text without what a contradiction may differ in: amounts and denials."""
    return DENIAL.sub("", _AMOUNT.sub(" ", _plain(text)))


def _same_matter(one: _Range, other: _Range) -> bool:
    """Whether both speak of one thing in nearly the same words, and are not one text."""
    if language(one.text) != language(other.text) or _squeezed(one.text) == _squeezed(other.text):
        return False
    return _alike(one, other) >= SAME


def _alike(one: _Range, other: _Range) -> float:
    """The smaller share of each one's terms that the other has."""
    return min(claims.coverage(one.terms, other.terms), claims.coverage(other.terms, one.terms))


def _difference(one: _Range, other: _Range) -> tuple[str, str] | None:
    """What each says where they differ: amounts of one unit none of which the other has, all other
    amounts being equal; or that one denies what the other affirms."""
    if one.amounts.keys() == other.amounts.keys():
        unlike = [unit for unit in one.amounts if one.amounts[unit] != other.amounts[unit]]
        if len(unlike) == 1 and not one.amounts[unlike[0]] & other.amounts[unlike[0]]:
            unit = unlike[0]
            return _say(one.amounts[unit], unit), _say(other.amounts[unit], unit)
        if unlike or denies(one.text) == denies(other.text):
            return None
        if _alike(one, other) >= SAME_BUT_DENIED:
            return _denial(one.text), _denial(other.text)
    return None


def _say(numbers: frozenset[str], unit: str) -> str:
    gap = " " if unit.isascii() and unit.isalpha() else ""
    return ", ".join(f"{number}{gap}{unit}" for number in sorted(numbers))


def _denial(text: str) -> str:
    zh = language(text) == "zh"
    if denies(text):
        return "否定" if zh else "denied"
    return "肯定" if zh else "affirmed"


def _squeezed(text: str) -> str:
    return "".join(_plain(text).split()).casefold()


def _evidence(found: _Range) -> Evidence:
    return Evidence(found.passage.index, found.passage.in_document(found.span), 1.0)

"""Passages that contradict each other: found by rules, named in the answer, both quoted.

Two ranges contradict each other if they say the same but for a fact (a number of the same unit, a
date, a time), or but for a denial. That is a narrow rule by intent, since an answer that cries
conflict where there is none is worse than one that quotes both without a word.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from headrace.pipeline import claims
from headrace.pipeline.evidence import Evidence, Passage
from headrace.pipeline.facts.kinds import Date, Fact, Facts, Identifier, Number, Time
from headrace.pipeline.facts.missing import same
from headrace.pipeline.facts.reading import denies
from headrace.pipeline.language import language
from headrace.types import Span

SAME = 0.75
"""Share of each range's words, numbers aside, that the other must have."""

SAME_BUT_DENIED = 0.9
"""The same where the only difference is a denial: in longer sentences one often denies a detail."""

ASKED = 0.5
"""Share of the question's terms that each of them must have, its titles included."""

FEWEST_WORDS = 3
"""Words that two ranges must share: fewer do not say of what they speak."""


class Clash(NamedTuple):
    """Two ranges that contradict each other, and in what: `values` are what each says."""

    one: Evidence
    other: Evidence
    values: tuple[str, str]


class _Range(NamedTuple):
    """`words` are what a contradiction may not differ in; `amounts` are facts by what they are of,
    as they are written."""

    passage: Passage
    span: Span  # of the passage's own text
    text: str
    words: frozenset[str]
    named: frozenset[Fact]
    amounts: Mapping[object, Mapping[Fact, str]]


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
    for window in passage.windows[: len(passage.pieces)]:
        if claims.coverage(asked, window.terms | path) >= ASKED:
            facts = window.facts
            words = frozenset(str(t.key) for t in facts.tokens if t.kind in ("word", "party"))
            if len(words) >= FEWEST_WORDS:
                text = window.span.of(passage.hit.text)
                yield _Range(passage, window.span, text, words, _named(facts), amounts(facts))


def _named(facts: Facts) -> frozenset[Fact]:
    """Which of a kind is spoken of: the second permit is not the first, nor A4 what A3 is."""
    return frozenset(
        fact
        for fact in facts.written
        if isinstance(fact, Identifier) or (isinstance(fact, Number) and fact.unit == "ordinal")
    )


def amounts(facts: Facts) -> dict[object, dict[Fact, str]]:
    """The numbers, dates and times of a text as it writes them, by what they are of: 14 days and
    150 yuan of `十四日内罚150元`."""
    found: dict[object, dict[Fact, str]] = {}
    for fact, said in facts.written.items():
        if isinstance(fact, Number) and fact.unit != "ordinal":
            found.setdefault((fact.unit, fact.noun), {})[fact] = said
        elif isinstance(fact, Date | Time):
            found.setdefault(type(fact), {})[fact] = said
    return found


def _same_matter(one: _Range, other: _Range) -> bool:
    """Whether both speak of one thing in nearly the same words."""
    if one.named != other.named or language(one.text) != language(other.text):
        return False
    return _alike(one, other) >= SAME


def _alike(one: _Range, other: _Range) -> float:
    """The smaller share of each one's words that the other has."""
    return min(claims.coverage(one.words, other.words), claims.coverage(other.words, one.words))


def _difference(one: _Range, other: _Range) -> tuple[str, str] | None:
    """What each says where they differ: amounts of one kind none of which the other has, all other
    amounts being equal; or that one denies what the other affirms."""
    if one.amounts.keys() != other.amounts.keys():
        return None
    unlike = [
        (mine, theirs)
        for mine, theirs in ((one.amounts[kind], other.amounts[kind]) for kind in one.amounts)
        if mine.keys() != theirs.keys()
    ]
    if len(unlike) == 1:
        mine, theirs = unlike[0]
        if not any(same(fact, rival) or same(rival, fact) for fact in mine for rival in theirs):
            return ", ".join(mine.values()), ", ".join(theirs.values())
    if unlike or denies(one.text) == denies(other.text) or _alike(one, other) < SAME_BUT_DENIED:
        return None
    return _denial(one.text), _denial(other.text)


def _denial(text: str) -> str:
    zh = language(text) == "zh"
    if denies(text):
        return "否定" if zh else "denied"
    return "肯定" if zh else "affirmed"


def _evidence(found: _Range) -> Evidence:
    return Evidence(found.passage.index, found.passage.in_document(found.span), 1.0)

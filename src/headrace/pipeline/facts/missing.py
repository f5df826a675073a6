"""Facts of a sentence that a source does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from headrace.pipeline.facts.kinds import (
    Date,
    Fact,
    Facts,
    Identifier,
    Name,
    Number,
    Provision,
    Time,
)
from headrace.pipeline.facts.reading import bare_title

_ITEM = re.compile(r"^\s*[(（](?:[一二三四五六七八九十]{1,3}|\d{1,2})[)）]", re.M)
_CONVERTIBLE = {"gram", "metre", "hour", "month", "day", "area", "litre", "hertz", "watt"}


class Source(NamedTuple):
    """What a sentence is compared with: a `window` of a passage, the title path `over` it, and the
    whole `passage`, whose paragraphs and items may be counted."""

    window: Facts
    over: Facts
    passage: str = ""


def missing(claim: Facts, source: Source, elsewhere: frozenset[Provision]) -> Iterator[str]:
    """For each fact of the claim that the source does not have: which, and what the source says
    instead. A provision may stand `elsewhere` if the claim also cites this source."""
    here = any(_provided(fact, source) for fact in _cited(claim))
    for fact, written in claim.written.items():
        if has(fact, source):
            continue
        if isinstance(fact, Number) and fact.unit == "kind" and not _counts_kinds(source):
            continue  # 以下六种行为: who sums up a list counts it
        if isinstance(fact, Provision) and here and _listed(fact, elsewhere):
            continue
        other = _instead(fact, source)
        yield f"{written}: the source says {other}" if other else f"{written} is not in the source"


def _cited(claim: Facts) -> list[Provision]:
    """The articles of the first clause that names any: where the claim says it has it from."""
    found: list[Provision] = []
    for token in claim.tokens:
        if isinstance(token.key, Provision) and token.key.part == "条":
            found.append(token.key)
        elif token.kind == "end" and found:
            break
    return found


def _counts_kinds(source: Source) -> bool:
    return any(isinstance(f, Number) and f.unit == "kind" for f in source.window.written)


def has(fact: Fact, source: Source) -> bool:
    """Whether the source has a fact, by value."""
    if isinstance(fact, Provision):
        return _provided(fact, source)
    if isinstance(fact, Identifier):
        return fact.text in source.window.plain.lower() or fact.text in source.over.plain.lower()
    if isinstance(fact, Name):
        return _named(fact, source)
    known: Iterable[Fact] = (*source.window.written, *source.over.written)
    return any(same(fact, other) for other in known)


def same(fact: Fact, other: Fact) -> bool:
    """Whether two facts have one value: numbers with their unit (of two units of one kind the same
    amount), dates in what the first says."""
    if isinstance(fact, Number) and isinstance(other, Number):
        return fact.value == other.value and _one_kind(fact, other)
    if isinstance(fact, Date) and isinstance(other, Date):
        return all(mine in (0, theirs) for mine, theirs in zip(fact, other, strict=True))
    if isinstance(fact, Date) and isinstance(other, Number):
        return not fact.month and not other.unit and fact.year == other.value
    if isinstance(fact, Number) and isinstance(other, Date):
        return not fact.unit and fact.value == other.year
    if isinstance(fact, Provision) and isinstance(other, Provision):
        return fact[:3] == other[:3] and (not fact.law or _one_law(fact.law, other.law, ""))
    return fact == other


def _one_kind(one: Number, other: Number) -> bool:
    if one.unit and other.unit:
        return one.unit == other.unit
    if one.unit or other.unit:  # a number in a table may have its unit at the head of the column
        return not (one.noun or other.noun)
    return True


def _provided(fact: Provision, source: Source) -> bool:
    for place in (source.over, source.window):
        for other in place.written:
            if (
                isinstance(other, Provision)
                and (other.part, other.number, other.sub) == (fact.part, fact.number, fact.sub)
                and _one_law(fact.law, other.law, source.over.plain)
            ):
                return True
    if fact.part == "款":
        paragraphs = [line for line in source.passage.splitlines() if line.strip()]
        whole = [line for line in paragraphs if not _ITEM.match(line)]
        return 0 < fact.number <= len(whole)
    if fact.part == "项":
        return 0 < fact.number <= len(_ITEM.findall(source.passage))
    return False


def _one_law(named: str, other: str, over: str) -> bool:
    if not named or not (other or over):
        return True
    if other:
        return named in other or other in named
    over = bare_title(over)
    return (
        named.lower() in over.lower()
        or any(len(title) > 1 and title in named for title in re.split(r"[\s›]+", over) if title)
        or _interpretation(named, over)
    )


def _interpretation(named: str, over: str) -> bool:
    """Whether 民间借贷司法解释 can be short for 最高人民法院关于审理民间借贷案件...的规定."""
    head = named.removesuffix("司法解释")
    rest = iter(over)
    return head not in ("", named) and "最高人民法院" in over and all(c in rest for c in head)


def _listed(fact: Provision, elsewhere: frozenset[Provision]) -> bool:
    return any((fact.part, fact.number, fact.sub) == other[:3] for other in elsewhere)


def _named(fact: Name, source: Source) -> bool:
    name = fact.text.lower()
    return any(
        name in place.plain.lower()
        or name in bare_title(place.plain).lower()
        or _interpretation(fact.text, place.plain)
        for place in (source.window, source.over)
    )


def _instead(fact: Fact, source: Source) -> str:
    """What the source has in a fact's place: the same number of another thing, or another value of
    the same kind."""
    known = source.window.written.items()
    if isinstance(fact, Number):
        numbers = [(other, text) for other, text in known if isinstance(other, Number)]
        for other, text in numbers:
            if other.value == fact.value:
                return text
        return next((text for other, text in numbers if other.unit == fact.unit), "")
    if isinstance(fact, Provision):
        both = (*source.over.written.items(), *known)
        return next((t for o, t in both if isinstance(o, Provision) and o.part == fact.part), "")
    if isinstance(fact, Date | Time):
        return next((text for other, text in known if type(other) is type(fact)), "")
    return ""

"""Which passages are the gold ones of a question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from unicodedata import normalize

from headrace.evaluation.format import Gold, Question
from headrace.types import Hit

_SPACE = re.compile(r"\s+")
_CELL_END = re.compile(r"[|\n]|: ")


def gold_of(question: Question, hits: Sequence[Hit]) -> list[frozenset[int]]:
    """For each hit, the numbers (from 0) of the needs in `question.gold` that it satisfies."""
    return [
        frozenset(
            number
            for number, need in enumerate(question.gold)
            if any(matches(gold, hit) for gold in need)
        )
        for hit in hits
    ]


def ranks(question: Question, hits: Sequence[Hit]) -> tuple[int, ...]:
    """The rank (from 1) of the first hit that satisfies each need; 0 where none does."""
    found = gold_of(question, hits)
    return tuple(
        next((rank for rank, needs in enumerate(found, 1) if number in needs), 0)
        for number in range(len(question.gold))
    )


def matches(gold: Gold, hit: Hit) -> bool:
    """Whether a hit is this passage. White space and Unicode's forms of one sign (full width, half
    width) make no difference; letters must be the same."""
    if gold.document and not f"/{hit.source}".endswith(f"/{gold.document}"):
        return False
    titles = [_plain(title) for title in (hit.title, *hit.path)]
    return (
        (not gold.title or _plain(gold.title) == titles[0])
        and (not gold.place or _stands_at(_plain(gold.place), titles[1:], hit.text))
        and _in_order(map(_plain, gold.path), titles)
        and all(_plain(words) in _plain(hit.text) for words in gold.contains)
    )


def _stands_at(place: str, path: Sequence[str], text: str) -> bool:
    """Whether `place` begins a title of the path or the text itself, or is a cell of its rows."""
    return any(_begins(title, place) for title in (*path, _plain(text))) or place in map(
        _plain, _CELL_END.split(text)
    )


def _begins(title: str, place: str) -> bool:
    """Whether a title is `place`, or begins with it and goes on with something else: article 2 is
    not article 25."""
    if not title.startswith(place):
        return False
    following = title[len(place) :][:1]
    return not (place[-1].isdecimal() and following.isdecimal()) and following != "之"


def _in_order(wanted: Iterable[str], titles: Sequence[str]) -> bool:
    """Whether the titles hold all that is wanted in this order; others may stand between."""
    left = iter(titles)
    return all(any(title == one for title in left) for one in wanted)


def _plain(text: str) -> str:
    return _SPACE.sub("", normalize("NFKC", text))

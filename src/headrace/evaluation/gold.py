"""Which passages are the gold ones of a question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from unicodedata import normalize

from headrace.evaluation.format import Gold, Question
from headrace.types import Hit

_SPACE = re.compile(r"\s+")
_CELL_END = re.compile(r"[|\n]|: ")

MOST_LOOKED_FOR = 20
"""Gold entries that name no title and are compared with every passage: 5 s of CPU for 58,594
of them."""


def gold_of(question: Question, hits: Sequence[Hit]) -> list[frozenset[int]]:
    """For each hit, the numbers (from 0) of the needs in `question.gold` that it satisfies."""
    return [
        frozenset(
            number
            for number, need in enumerate(question.gold)
            if any(seen.is_gold(gold) for gold in need)
        )
        for seen in map(Seen, hits)
    ]


def ranks(question: Question, hits: Sequence[Hit]) -> tuple[int, ...]:
    """The rank (from 1) of the first hit that satisfies each need; 0 where none does."""
    found = gold_of(question, hits)
    return tuple(
        next((rank for rank, needs in enumerate(found, 1) if number in needs), 0)
        for number in range(len(question.gold))
    )


def nowhere(questions: Iterable[Question], hits: Iterable[Hit]) -> list[str]:
    """The ids of questions with a need that none of the hits satisfies. Of entries that name no
    title only `MOST_LOOKED_FOR` are looked for, and the others taken as found."""
    wanted: dict[str, list[tuple[tuple[str, int], Gold]]] = {}
    missing: dict[tuple[str, int], None] = {}
    for question in questions:
        for number, need in enumerate(question.gold):
            keys = [_title(gold) for gold in need]
            if "" in keys and len(wanted.get("", ())) >= MOST_LOOKED_FOR:
                continue
            missing[question.id, number] = None
            for key, gold in zip(keys, need, strict=True):
                wanted.setdefault(key, []).append(((question.id, number), gold))
    for seen in map(Seen, hits):
        for title in {"", *seen.titles}:
            for need_of, gold in wanted.get(title, ()):
                if need_of in missing and seen.is_gold(gold):
                    del missing[need_of]
        if not missing:
            break
    return list(dict.fromkeys(question_id for question_id, _ in missing))


def _title(gold: Gold) -> str:
    """One that the passage must have, or that of its document; empty if none is named."""
    return _plain(gold.path[-1]) if gold.path else _plain(gold.title)


class Seen:
    """A hit, to be compared with gold passages. White space and Unicode's forms of one sign (full
    width, half width) make no difference; letters must be the same."""

    def __init__(self, hit: Hit) -> None:
        self._hit = hit

    @cached_property
    def _source(self) -> str:
        return "/" + _plain(self._hit.source)

    @cached_property
    def titles(self) -> list[str]:
        """The document's, then those of the path."""
        return [_plain(title) for title in (self._hit.title, *self._hit.path)]

    @cached_property
    def _text(self) -> str:
        return normalized(self._hit.text)

    @cached_property
    def _cells(self) -> frozenset[str]:
        return frozenset(map(normalized, _CELL_END.split(self._hit.text)))

    def is_gold(self, gold: Gold) -> bool:
        """Whether it is this passage."""
        return (
            (not gold.document or self._source.endswith("/" + _plain(gold.document)))
            and (not gold.title or _plain(gold.title) == self.titles[0])
            and (not gold.place or self._stands_at(_plain(gold.place)))
            and _in_order(map(_plain, gold.path), self.titles)
            and all(_plain(words) in self._text for words in gold.contains)
        )

    def _stands_at(self, place: str) -> bool:
        """Whether `place` begins a title of the path or the text itself, or is a cell of its
        rows."""
        path = self.titles[1:]
        return any(_begins(title, place) for title in (*path, self._text)) or place in self._cells


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


def normalized(text: str) -> str:
    """Without white space, in Unicode's compatible form."""
    return _SPACE.sub("", normalize("NFKC", text))


_plain = lru_cache(maxsize=1 << 16)(normalized)
"""Of gold entries and titles, which come again and again."""

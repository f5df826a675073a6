"""Cutting a range of text into pieces that fit a token budget.

A range is first cut at paragraphs; what does not fit is cut at lines, then at sentences, then
hard. The parts are packed greedily, so every character is measured a fixed number of times.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from headrace.ingest.chunkers.tokens import milli_tokens, runs
from headrace.types import Span

_PARAGRAPH = re.compile(r"\n\s*\n\s*")
_LINE = re.compile(r"\n\s*")
_SENTENCE = re.compile(r"(?:[。！？；…]|[.!?;](?=[\"'”’)\]]*(?:\s|$)))[\"'”’」』）)\]]*\s*")
_LEVELS = (_PARAGRAPH, _LINE, _SENTENCE)

_LONGEST_CLUSTER = 32
"""No writing stacks more marks on a letter; a longer run is an attack and may be cut."""


def pack(text: str, span: Span, budget: int) -> list[Span]:
    """Pieces of `span` of at most `budget` estimated tokens, in order, without blank edges.

    A piece is above the budget only if it is one character with its combining marks. Blank
    pieces are left out.
    """
    limit = max(1, budget) * 1000
    pieces: list[Span] = []
    start, last, cost = span.start, span.start, 0
    for end, part in _parts(text, span, limit, 0):
        if cost and cost + part > limit:
            pieces.append(Span(start, last))
            start, cost = last, 0
        cost += part
        last = end
    pieces.append(Span(start, span.end))
    return [piece for piece in (trim(text, piece) for piece in pieces) if piece]


def trim(text: str, span: Span) -> Span | None:
    """`span` without white space at its edges; `None` if nothing is left."""
    part = span.of(text)
    left = len(part) - len(part.lstrip())
    if left == len(part):
        return None
    return Span(span.start + left, span.start + len(part.rstrip()))


def _parts(text: str, span: Span, limit: int, level: int) -> Iterator[tuple[int, int]]:
    """(end, cost) of consecutive parts that cover `span`, each within `limit` if it can be."""
    if level == len(_LEVELS):
        yield from _hard(text, span, limit)
        return
    for part in _cut(_LEVELS[level], text, span):
        cost = milli_tokens(text, part.start, part.end)
        if cost <= limit:
            yield part.end, cost
        else:
            yield from _parts(text, part, limit, level + 1)


def _cut(pattern: re.Pattern[str], text: str, span: Span) -> Iterator[Span]:
    start = span.start
    for match in pattern.finditer(text, span.start, span.end):
        yield Span(start, match.end())
        start = match.end()
    if start < span.end:
        yield Span(start, span.end)


def _hard(text: str, span: Span, limit: int) -> Iterator[tuple[int, int]]:
    """Cut between runs of one character class, and inside a run that is too long alone."""
    start = span.start
    for run in runs(text, span.start, span.end):
        while start < run.end:
            fits = (limit - run.weight.first) // run.weight.more if run.weight.more else len(text)
            end = _whole(text, start, min(run.end, start + max(1, fits)), span.end)
            yield end, milli_tokens(text, start, end)
            start = end


def _whole(text: str, start: int, end: int, stop: int) -> int:
    """The nearest place to `end` in (start, stop] that does not cut a combining sequence."""
    if end >= stop or not _joins(text, end):
        return end
    for place in range(end - 1, max(start, end - _LONGEST_CLUSTER), -1):
        if not _joins(text, place):
            return place
    for place in range(end + 1, min(stop, end + _LONGEST_CLUSTER)):
        if not _joins(text, place):
            return place
    return end


def _joins(text: str, place: int) -> bool:
    """Does the character at `place` belong to the one before it?"""
    char = text[place]
    if char < "\u0300":
        return False
    return (
        unicodedata.combining(char) != 0
        or unicodedata.category(char) in ("Mn", "Me", "Mc")
        or "\ufe00" <= char <= "\ufe0f"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or char == "\u200d"
        or text[place - 1] == "\u200d"
    )

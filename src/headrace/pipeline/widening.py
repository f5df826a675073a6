"""Search small, read large: what stands beside a passage found, and goes on with it.

A section longer than `chunk_tokens` is cut into several chunks, and a search finds one of them: a
list without the line that introduces it, the second half of a table. What is read (by the
generator, by the checks, for quotations) is therefore more than what was found:

1. A neighbour is the chunk before or after a hit, of the same document under the same titles, with
nothing but white space between them. Rows of a table are no neighbours: each stands alone.
2. `cut` takes a neighbour only where the cut went through something: no empty line lies between the
two, the first ends with a colon, or the second begins like an item of a list or a row of a table.
`section` takes any.
3. The best hit's neighbours come first, at most one on each side, while they fit into the tokens
left. Access and filters are those of the search.
4. Neighbours that were both taken, or found, become one passage, at the place of the better one.

The text of such a passage is that of the stored document over its span, so quotations from it are
checked as all others are. A document that changed since the search is read as it was found.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from msgspec.structs import replace

from headrace.retrieval.base import Index
from headrace.serving.lengths import estimate
from headrace.types import Filter, Hit, Parsed, Span

_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")
_ITEM = re.compile(
    r"\s*(?:[-*+•·][ \t]|[|+]|\d{1,3}[.)][ \t]"
    r"|[(（](?:\d{1,3}|[a-z]|[一二三四五六七八九十]{1,3})[)）]|[一二三四五六七八九十]{1,3}、)"
)


def widened(
    hits: Sequence[Hit],
    index: Index,
    where: Filter,
    widen: Literal["off", "cut", "section"],
    tokens: float,
) -> tuple[Hit, ...]:
    """The hits in their order, each with its neighbours as far as `tokens` more allow. Blocks."""
    if widen == "off" or not hits:
        return tuple(hits)
    beside = _Beside(hits, index, where, cut=widen == "cut")
    taken = {hit.chunk_id for hit in hits}
    for hit in hits:
        for first, new in ((hit.chunk_id, hit.chunk_id + 1), (hit.chunk_id - 1, hit.chunk_id - 1)):
            if new in taken or not beside.joins(first):
                continue
            cost = estimate(beside.known[new].text)
            if cost <= tokens:
                taken.add(new)
                tokens -= cost
    return tuple(_passages(hits, beside, taken))


class _Beside:
    """The hits and their neighbours by chunk id, and which of them belong together."""

    def __init__(self, hits: Sequence[Hit], index: Index, where: Filter, *, cut: bool) -> None:
        self._index, self._cut = index, cut
        self._parsed: dict[str, Parsed | None] = {}
        self._joins: dict[int, bool] = {}
        found = {hit.chunk_id: hit for hit in hits}
        wanted = {near for id_ in found for near in (id_ - 1, id_ + 1)} - found.keys()
        neighbours = index.get({key: {} for key in sorted(wanted)}, where)
        self.known = found | {hit.chunk_id: hit for hit in neighbours}

    def joins(self, first: int) -> bool:
        """Whether the chunk `first` and the one after it are to be read as one."""
        if first not in self._joins:
            one, other = self.known.get(first), self.known.get(first + 1)
            self._joins[first] = one is not None and other is not None and self._one(one, other)
        return self._joins[first]

    def text(self, document_id: str, span: Span) -> str:
        parsed = self._stored(document_id)
        return "" if parsed is None else span.of(parsed.text)

    def _one(self, one: Hit, other: Hit) -> bool:
        if one.document_id != other.document_id or one.path != other.path:
            return False
        parsed = self._stored(one.document_id)
        if parsed is None or one.span.end > other.span.start:
            return False
        between = Span(one.span.end, other.span.start).of(parsed.text)
        if between.strip() or _new_row(parsed, one.span.start, other.span.start):
            return False
        if any(hit.span.of(parsed.text) != hit.text for hit in (one, other)):
            return False
        return not self._cut or not _EMPTY_LINE.search(between) or _cut(one.text, other.text)

    def _stored(self, document_id: str) -> Parsed | None:
        if document_id not in self._parsed:
            document = self._index.document(document_id)
            self._parsed[document_id] = None if document is None else document.parsed
        return self._parsed[document_id]


def _cut(one: str, other: str) -> bool:
    """Whether what stands on both sides of an empty line belongs together all the same."""
    return one.endswith((":", "：")) or _ITEM.match(other) is not None


def _new_row(parsed: Parsed, start: int, end: int) -> bool:
    """Whether a row of a table begins after `start`, at `end` at the latest."""
    after = bisect_right(parsed.rows, start, key=lambda row: row.span.start)
    return after < len(parsed.rows) and parsed.rows[after].span.start <= end


def _passages(hits: Sequence[Hit], beside: _Beside, taken: set[int]) -> list[Hit]:
    """One passage for each run of chunks that were taken and belong together."""
    read: list[Hit] = []
    placed: set[int] = set()
    for hit in hits:
        if hit.chunk_id in placed:
            continue
        first = last = hit.chunk_id
        while first - 1 in taken and beside.joins(first - 1):
            first -= 1
        while last + 1 in taken and beside.joins(last):
            last += 1
        placed |= set(range(first, last + 1))
        if first < last:
            start = beside.known[first]
            span = Span(start.span.start, beside.known[last].span.end)
            text = beside.text(hit.document_id, span)
            hit = replace(hit, span=span, text=text, page=start.page)
        read.append(hit)
    return read

"""The chunker for statutes: a chunk is an article, its path the units around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, pairwise

import msgspec

from headrace.ingest.chunkers.markers import Marker, find_markers
from headrace.ingest.chunkers.plain import untitled
from headrace.ingest.chunkers.sections import Section, assemble, ends_of
from headrace.types import Chunking, Exclusion, Heading, Parsed, Span

CONTENTS = "table of contents"

_CONTENTS_LINE = re.compile(
    r"^[ \t\u3000#*_]{0,40}(?:目[ \t\u2002\u2003\u3000]{0,4}[录次]|(?:Table of )?Contents|CONTENTS)"
    r"[ \t\u3000:：*_]{0,9}$",
    re.MULTILINE,
)
_LONGEST_ENTRY = 120
_MOST_TABLES = 8

_LEAST_ARTICLES = 2
_LEAST_SHARE = 0.6
_LEAST_ASCENDING = 0.8


class Entry(msgspec.Struct, frozen=True):
    """A line of the outline: an article, a unit, or another heading. `level` is the reader's
    heading level, 0 if it found none; `rank` is the unit's, 0 if it is no unit."""

    span: Span
    title: str
    level: int
    rank: int
    article: bool


def statute(parsed: Parsed, budget: int) -> Chunking:
    """One article a chunk; a long one is split at paragraphs and items, and the pieces share its
    path: the document's title, the units (编, 章, 节, Part, Chapter, ...) and the article's label.

    Text before the first article and under headings that are no units becomes chunks, too; a
    table of contents is excluded.
    """
    markers, contents = _without_contents(parsed, find_markers(parsed))
    entries = _entries(parsed, markers, contents)
    excluded = untitled(parsed) + [Exclusion(span, CONTENTS) for span in contents]
    return assemble(parsed, _sections(parsed, entries), budget, excluded)


def is_statute(parsed: Parsed) -> bool:
    """Does most of the text stand in articles? There must be at least two, with numbers that
    ascend in four of five steps, and 60 % of the characters outside headings must be theirs."""
    markers, contents = _without_contents(parsed, find_markers(parsed))
    articles = [marker for marker in markers if marker.article]
    if len(articles) < _LEAST_ARTICLES:
        return False
    ascending = sum(first.number <= second.number for first, second in pairwise(articles))
    if ascending < _LEAST_ASCENDING * (len(articles) - 1):
        return False
    entries = _entries(parsed, markers, contents)
    ends = ends_of([entry.span.start for entry in entries], len(parsed.text))
    inside = sum(
        end - entry.span.start for entry, end in zip(entries, ends, strict=True) if entry.article
    )
    outside = sum(len(span) for span in contents) + sum(len(hide.span) for hide in parsed.hidden)
    outside += sum(len(entry.span) for entry in entries if not entry.article)
    return inside >= _LEAST_SHARE * (len(parsed.text) - outside)


def _without_contents(parsed: Parsed, markers: Sequence[Marker]) -> tuple[list[Marker], list[Span]]:
    """Markers outside tables of contents, and the tables: from their heading to where the first
    thing they name comes again, if only short lines are between."""
    tables: list[Span] = []
    for match in islice(_CONTENTS_LINE.finditer(parsed.text), _MOST_TABLES):
        start = match.start()
        if tables and start < tables[-1].end:
            continue
        listed = [marker for marker in markers if marker.span.start >= start]
        again = next((m for m in listed[1:] if m.label == listed[0].label), None)
        if again is None:
            continue
        table = Span(start, again.span.start)
        if all(len(line) <= _LONGEST_ENTRY for line in table.of(parsed.text).splitlines()):
            tables.append(table)
    kept = [m for m in markers if not any(t.start <= m.span.start < t.end for t in tables)]
    return kept, tables


def _entries(parsed: Parsed, markers: Sequence[Marker], contents: Sequence[Span]) -> list[Entry]:
    heads: dict[int, Heading] = {
        heading.span.start: heading
        for heading in parsed.headings
        if not any(table.start <= heading.span.start < table.end for table in contents)
    }
    entries = []
    for marker in markers:
        heading = heads.pop(marker.span.start, None)
        span = heading.span if heading else marker.span
        title = marker.label if marker.article else marker.title
        level = heading.level if heading else 0
        entries.append(Entry(span, title, level, marker.rank, marker.article))
    entries += (Entry(h.span, h.title, h.level, 0, False) for h in heads.values())
    return sorted(entries, key=lambda entry: entry.span.start)


def _sections(parsed: Parsed, entries: Sequence[Entry]) -> list[Section]:
    root = (parsed.title,) if parsed.title else ()
    first = entries[0].span.start if entries else len(parsed.text)
    sections = [Section(Span(0, first), root, 0)]
    ends = ends_of([entry.span.start for entry in entries], len(parsed.text))
    around: list[Entry] = []
    for entry, end in zip(entries, ends, strict=True):
        while around and not _contains(around[-1], entry):
            around.pop()
        opened = entry.title and (around or entry.title != parsed.title)
        if opened and not entry.article:
            around.append(entry)
        titles = (*(unit.title for unit in around), *((entry.title,) if entry.article else ()))
        body = entry.span.start if entry.article else entry.span.end
        sections.append(Section(Span(entry.span.start, end), (*root, *titles), body))
    return sections


def _contains(outer: Entry, inner: Entry) -> bool:
    """May `inner` stand under `outer`? Ranks decide between units, the reader's levels between
    other headings; a unit that is no heading belongs under any heading."""
    if inner.article:
        return outer.rank > 0 or not 0 < inner.level <= outer.level
    if outer.rank and inner.rank:
        return outer.rank < inner.rank
    if outer.level and inner.level:
        return outer.level < inner.level
    return not outer.rank

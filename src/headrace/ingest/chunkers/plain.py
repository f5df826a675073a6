"""Chunkers for text without structure, for headings, and for rows."""

from __future__ import annotations

from headrace.ingest.chunkers.outline import Outline
from headrace.ingest.chunkers.sections import Section, assemble, ends_of
from headrace.types import Chunking, Exclusion, Parsed, Span


def plain(parsed: Parsed, budget: int) -> Chunking:
    """Paragraphs packed to the budget; the path is the document's title."""
    whole = Span(0, len(parsed.text))
    return assemble(parsed, [Section(whole, _titled(parsed), 0)], budget)


def rows(parsed: Parsed, budget: int) -> Chunking:
    """One row a chunk (a long one is split); the path is the title and the sheet."""
    title = _titled(parsed)
    sections = []
    start = 0
    for row in parsed.rows:
        if start < row.span.start:
            sections.append(Section(Span(start, row.span.start), title, start))
        path = (*title, row.sheet) if row.sheet else title
        sections.append(Section(row.span, path, row.span.start))
        start = row.span.end
    if start < len(parsed.text):
        sections.append(Section(Span(start, len(parsed.text)), title, start))
    return assemble(parsed, sections, budget)


def headings(parsed: Parsed, budget: int) -> Chunking:
    """Sections between headings, split where they are above the budget and never joined over a
    heading; the path is the document's title and the titles of the headings."""
    outline = Outline(parsed.title)
    first = parsed.headings[0].span.start if parsed.headings else len(parsed.text)
    sections = [Section(Span(0, first), outline.path, 0)]
    ends = ends_of([heading.span.start for heading in parsed.headings], len(parsed.text))
    for heading, end in zip(parsed.headings, ends, strict=True):
        outline.enter(heading.level, heading.title)
        sections.append(Section(Span(heading.span.start, end), outline.path, heading.span.end))
    return assemble(parsed, sections, budget, untitled(parsed))


def untitled(parsed: Parsed) -> list[Exclusion]:
    """Heading lines without a word, such as a lone `##`."""
    return [Exclusion(h.span, "empty heading") for h in parsed.headings if not h.title]


def _titled(parsed: Parsed) -> tuple[str, ...]:
    return (parsed.title,) if parsed.title else ()

"""From sections to chunks: the part that all chunkers share.

A chunker says where its sections are and what their title paths are; here hidden ranges are cut
out, long sections are split, and every character left over gets its exclusion.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from headrace.ingest.chunkers.split import pack, trim
from headrace.ingest.chunkers.tokens import estimate_tokens
from headrace.types import Chunk, Chunking, Exclusion, Parsed, Span

BLANK = "blank"
IN_PATH = "heading, kept in the title path"

_LONGEST_TITLE = 120
_SHORTEST_TITLE = 8


class Section(msgspec.Struct, frozen=True):
    """A part of the text under one title path. Characters before `body` are its heading: they
    are not repeated in a chunk if a chunk has the heading in its path."""

    span: Span
    path: tuple[str, ...]
    body: int


def ends_of(starts: Sequence[int], size: int) -> list[int]:
    """Where each of consecutive parts ends, given where they start in a text of `size`."""
    return [*starts[1:], size] if starts else []


def assemble(
    parsed: Parsed, sections: Sequence[Section], budget: int, exclusions: Iterable[Exclusion] = ()
) -> Chunking:
    """Chunks of at most `budget` estimated tokens, title path included. `sections` are in order
    and cover the text but for `exclusions` and `parsed.hidden`."""
    out = sorted((*parsed.hidden, *exclusions), key=lambda exclusion: exclusion.span.start)
    builder = _Builder(parsed.text, budget, [exclusion.span for exclusion in out])
    bodies = [
        builder.chunks(Span(section.body, section.span.end), section.path) for section in sections
    ]
    used = {
        chunk.path[:depth]
        for chunks in bodies
        for chunk in chunks[:1]
        for depth in range(len(chunk.path) + 1)
    }
    chunks: list[Chunk] = []
    for section, body in zip(sections, bodies, strict=True):
        heading = Span(section.span.start, section.body)
        if heading and section.path in used:
            out += (Exclusion(piece, IN_PATH) for piece in builder.visible(heading))
        else:
            chunks += builder.chunks(heading, section.path)
        chunks += body
    return Chunking(tuple(chunks), tuple(_with_blanks(parsed.text, chunks, out)))


class _Builder:
    """Cuts visible text into chunks. `holes` are sorted ranges that no chunk may touch."""

    def __init__(self, text: str, budget: int, holes: Sequence[Span]) -> None:
        self._text = text
        self._budget = budget
        self._holes = _merged(holes)
        self._paths: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {}

    def chunks(self, span: Span, path: tuple[str, ...]) -> list[Chunk]:
        if path not in self._paths:
            self._paths[path] = fit_path(path, self._budget)
        fitted, cost = self._paths[path]
        return [
            Chunk(piece, fitted)
            for part in self.visible(span)
            for piece in pack(self._text, part, self._budget - cost)
        ]

    def visible(self, span: Span) -> Iterator[Span]:
        """The parts of `span` outside the holes, without blank edges."""
        start = span.start
        first = bisect_right(self._holes, start, key=lambda hole: hole.end)
        for hole in islice(self._holes, first, None):
            if hole.start >= span.end:
                break
            if start < hole.start and (part := trim(self._text, Span(start, hole.start))):
                yield part
            start = min(hole.end, span.end)
        if part := trim(self._text, Span(start, span.end)):
            yield part


def fit_path(path: tuple[str, ...], budget: int) -> tuple[tuple[str, ...], int]:
    """`path` with its titles cut until it takes at most half of `budget`, and its tokens (one
    more per title, for what joins them)."""
    longest = _LONGEST_TITLE
    while True:
        fitted = tuple(_short(title, longest) for title in path)
        cost = sum(estimate_tokens(title) + 1 for title in fitted)
        if cost <= budget // 2:
            return fitted, cost
        if longest > _SHORTEST_TITLE:
            longest = max(_SHORTEST_TITLE, longest * 2 // 3)
        elif path:
            path = path[1:]
        else:
            return (), 0


def _short(title: str, longest: int) -> str:
    return title if len(title) <= longest else title[: longest - 1] + "…"


def unaccounted(parsed: Parsed, chunking: Chunking) -> list[Span]:
    """The ranges of the parsed text that are in no chunk and no exclusion: none, if all is well."""
    covered = [chunk.span for chunk in chunking.chunks]
    covered += [exclusion.span for exclusion in chunking.exclusions]
    return _gaps(covered, len(parsed.text))


def _with_blanks(text: str, chunks: Sequence[Chunk], out: list[Exclusion]) -> list[Exclusion]:
    covered = [chunk.span for chunk in chunks] + [exclusion.span for exclusion in out]
    blanks = [Exclusion(gap, BLANK) for gap in _gaps(covered, len(text)) if gap.of(text).isspace()]
    return sorted(out + blanks, key=lambda exclusion: exclusion.span.start)


def _gaps(covered: Sequence[Span], size: int) -> list[Span]:
    gaps = []
    start = 0
    for span in _merged(covered):
        if start < span.start:
            gaps.append(Span(start, span.start))
        start = span.end
    if start < size:
        gaps.append(Span(start, size))
    return gaps


def _merged(spans: Sequence[Span]) -> list[Span]:
    """The union of `spans` as disjoint ranges in order; empty spans vanish."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if not span:
            continue
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged

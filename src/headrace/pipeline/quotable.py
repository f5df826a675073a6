"""What of a passage can stand alone as a quotation."""

from __future__ import annotations

import re

from headrace.pipeline import claims
from headrace.pipeline.evidence import Passage
from headrace.retrieval.analyze import references
from headrace.types import Span

LONGEST = 480
"""Characters of a sentence that introduces a list, and as much of the list as fits with it."""

FEWEST_TERMS = 2
"""Terms of a quotation; one word answers nothing that can be read without its neighbours."""

LONGEST_SECTION = 1_500
"""Characters up to which a provision is quoted whole when it is asked for by its number."""

_MARKER = re.compile(r"[ \t]*(?:(?:[-*+•|>]|#{1,6})[ \t]+)+")
_ROW_END = re.compile(r"[ \t]*\|[ \t]*\Z")
_ADDRESS = re.compile(r"<?\bhttps?://[^\s>)\]]+>?")


def quotable(passage: Passage) -> list[Span]:
    """Ranges of the passage's own text: its pieces without the list marks around them, without
    those that say hardly anything, and an introduction (`...:`) with its list."""
    found = []
    for number, piece in enumerate(passage.pieces):
        span = _tidy(passage.hit.text, _with_list(passage, number, piece))
        text = span.of(passage.hit.text)
        if len(claims.terms(_ADDRESS.sub(" ", text))) >= FEWEST_TERMS:
            found.append(span)
    return found


def _with_list(passage: Passage, number: int, piece: Span) -> Span:
    if not _introduces(passage, piece):
        return piece
    end = piece.end
    for item in passage.pieces[number + 1 :]:
        if item.end - piece.start > LONGEST or _introduces(passage, item):
            break
        end = item.end
    return Span(piece.start, end)


def _introduces(passage: Passage, piece: Span) -> bool:
    return piece.of(passage.hit.text).endswith((":", "："))


def _tidy(text: str, span: Span) -> Span:
    """Without the mark of a list item, heading or table row, if it is the range's only one."""
    piece = span.of(text)
    marker = _MARKER.match(piece)
    if marker is None or any(_MARKER.match(line) for line in piece.split("\n")[1:]):
        return span
    row_end = _ROW_END.search(piece) if "|" in marker.group() else None
    end = row_end.start() if row_end else len(piece)
    return Span(span.start + marker.end(), span.start + max(end, marker.end()))


def asked_for(passage: Passage, question: str) -> bool:
    """Whether the question names this passage's own provision or identifier: 第44条 or `Article 44`
    for what stands under the title `Article 44`."""
    path = passage.hit.path
    return bool(path) and bool(references(question) & references(path[-1]))


def whole(passage: Passage, question: str) -> Span | None:
    """All of the passage, if the question asks for hardly more than what its title names."""
    text = passage.hit.text
    path = claims.terms(" ".join(passage.hit.path))
    if claims.coverage(claims.terms(question), path) < 0.7 or not text.strip():
        return None
    span = Span(len(text) - len(text.lstrip()), len(text.rstrip()))
    return span if span.end - span.start <= LONGEST_SECTION else None

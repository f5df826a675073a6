"""reStructuredText. The parsed text is the file's own; headings are found by their adornments,
levels in the order in which the adornments first appear."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from headrace.ingest.readers.decode import decode
from headrace.ingest.readers.source import Source, one_line, tidy, title_of
from headrace.types import Exclusion, Heading, Parsed, Span

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{1,}[ \t]*")
_COMMENT = re.compile(
    r"^\.\.(?:[ \t]+(?![_\[|]|[^\n]{0,200}::(?:\s|$))[^\n]*|[ \t]*(?=\n|\Z))"
    r"\n?(?:[ \t]+\S[^\n]*(?:\n|\Z))*",
    re.MULTILINE,
)


def read_rst(source: Source) -> Parsed:
    decoded = decode(source)
    text = tidy(decoded.text)
    headings = tuple(_headings(text))
    hidden = tuple(
        Exclusion(Span(match.start(), match.end()), "comment") for match in _COMMENT.finditer(text)
    )
    start = 0
    for comment in hidden:
        if text[start : comment.span.start].strip():
            break
        start = comment.span.end
    return Parsed(
        text,
        "text/x-rst",
        title=title_of(text, headings, start, source.stem),
        headings=headings,
        hidden=hidden,
        notes=decoded.notes,
    )


def _headings(text: str) -> Iterator[Heading]:
    """A title is one line, not indented, with a line of one repeated mark under it that is about
    as long, and perhaps the same line above it."""
    styles: list[tuple[str, bool]] = []
    lines = [(match.start(), match.end()) for match in re.finditer(r"[^\n]*(?:\n|\Z)", text)]
    after = 0
    for index in range(1, len(lines)):
        under = _ADORNMENT.fullmatch(text[slice(*lines[index])].rstrip("\n"))
        if not under or index - 1 < after:
            continue
        title = text[slice(*lines[index - 1])].rstrip()
        above = text[slice(*lines[index - 2])].strip() if index >= 2 else ""
        over = bool(above) and above == under.group().strip()
        if not title or (above and not over) or (title[0].isspace() and not over):
            continue
        if _ADORNMENT.fullmatch(title) or len(under.group().strip()) < min(4, _columns(title)):
            continue
        first = index - 2 if over else index - 1
        style = (under[1], over)
        if style not in styles:
            styles.append(style)
        after = index + 1
        span = Span(lines[first][0], lines[index][1])
        yield Heading(span, styles.index(style) + 1, one_line(title))


def _columns(title: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in title)

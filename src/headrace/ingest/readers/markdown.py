"""Markdown. The parsed text is the file's own; front matter and comments become hidden ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from headrace.ingest.readers.decode import decode
from headrace.ingest.readers.source import Source, one_line, tidy, title_of
from headrace.types import Exclusion, Heading, Parsed, Span

_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\n(?P<body>(?:.*\n)*?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_ENTRY = re.compile(r"^(?P<key>[A-Za-z][\w-]{0,40}):[ \t]*(?P<value>[^\n]+)$", re.MULTILINE)
_COMMENTS = re.compile(r"(?:\s*<!--(?:(?!-->).)*-->)+\s*", re.DOTALL)
_INLINE = MarkdownIt("commonmark")
_BLOCKS = MarkdownIt("commonmark").disable(["inline", "text_join"])


def read_markdown(source: Source) -> Parsed:
    decoded = decode(source)
    text = tidy(decoded.text)
    front, entries = _front_matter(text)
    lines = _line_starts(text)
    # The front matter's lines stay, emptied, so that line numbers hold.
    body = "\n" * text.count("\n", 0, front) + text[front:]
    tokens = _BLOCKS.parse(body)
    headings = tuple(_headings(text, tokens, lines))
    hidden = [Exclusion(Span(0, front), "front matter")] if front else []
    hidden += _comments(text, tokens, lines)
    start = max(
        (h.span.end for h in hidden[:1] if not text[front : h.span.start].strip()), default=0
    )
    return Parsed(
        text,
        "text/markdown",
        title=one_line(entries.get("title", "")) or title_of(text, headings, start, source.stem),
        headings=headings,
        hidden=tuple(hidden),
        metadata=entries,
        notes=decoded.notes,
    )


def _front_matter(text: str) -> tuple[int, dict[str, str]]:
    """Where the front matter ends (0 if there is none), and its plain entries."""
    match = _FRONT_MATTER.match(text)
    if not match:
        return 0, {}
    entries = {}
    for entry in _ENTRY.finditer(match["body"]):
        value = entry["value"].strip().strip("\"'")
        if value and value[0] not in "[{|>&*!":
            entries[entry["key"].lower()] = value
    return match.end(), entries


def _line_starts(text: str) -> list[int]:
    """Where each line starts, and at last the end of the text."""
    starts = [0]
    starts += (match.end() for match in re.finditer("\n", text))
    if starts[-1] != len(text):
        starts.append(len(text))
    return starts


def _lines_span(token: Token, lines: list[int]) -> Span:
    first, last = token.map or [0, 0]
    return Span(lines[min(first, len(lines) - 1)], lines[min(last, len(lines) - 1)])


def _headings(text: str, tokens: list[Token], lines: list[int]) -> Iterator[Heading]:
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0:
            yield Heading(_lines_span(token, lines), int(token.tag[1:]), _plain(content.content))


def _plain(markup: str) -> str:
    """A heading's words without its markup; the markup itself where there are no words."""
    children = _INLINE.parseInline(markup)[0].children or []
    words = "".join(
        child.content
        if child.type in ("text", "code_inline")
        else " " * child.type.endswith("break")
        for child in children
    )
    return one_line(words) or one_line(markup)


def _comments(text: str, tokens: list[Token], lines: list[int]) -> Iterator[Exclusion]:
    for token in tokens:
        if token.type == "html_block" and _COMMENTS.fullmatch(token.content):
            yield Exclusion(_lines_span(token, lines), "comment")

"""Sentences: their ranges in a text, and one after the other out of a stream."""

from __future__ import annotations

import re

from headrace.types import Span

_END = re.compile(
    r"(?:[。！？!?]+[”’」』）)\"]*|\.(?=\s|$)[”’)\"]*|\n+)(?:[ \t]*\[\d{1,3}\])*\s*", re.MULTILINE
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|\d{1,3}|e\.g|i\.e|cf|vs|etc|No|Nr|Art|Sec|Ch|Fig|Dr|Mr|Mrs|Ms|St|Inc|"
    r"Ltd|approx)\.\s*$"
)
_OPEN_MARKER = re.compile(r"^\[\d{0,3}$")
_SHORT = 12
"""A sentence of fewer UTF-8 bytes (`Yes.`, 是。) is read together with the next one."""

_UNIT_MOST, _ROUND_LEAST, _ROUNDS = 40, 60, 6

_BREAK = re.compile(r"[ \t]*\n[ \t]*")
_FULL_LINE = 40
_JOINED_MOST = 600
_GOES_ON = re.compile(r"[ \t]*(?!\d{1,3}[.)]\s)[`\"“(*]{0,2}[A-Za-z0-9]")
_LINE_STANDS_ALONE = re.compile(r"\s*[|+#.]|.*[.:;!?|。：；！？]\s*\Z", re.DOTALL)


def goes_round(text: str) -> bool:
    """Whether a text ends with one short piece over and over (`-n -n -n`), rules and dots aside:
    what a small generator writes when it has lost its way."""
    for size in range(1, _UNIT_MOST + 1):
        unit = text[-size:]
        times = max(_ROUNDS, -(-_ROUND_LEAST // size))
        if text.endswith(unit * times) and any(map(str.isalnum, unit)):
            return True
    return False


def _wraps(text: str, start: int, end: int) -> bool:
    """Whether the line break in `text[start:end]` only wraps a line: the line before it is long,
    no sentence ends with it, and the next one begins like running text in Latin letters, not like
    an item of a list, a row of a table or a heading."""
    line = text[text.rfind("\n", 0, start) + 1 : start]
    if len(line.strip()) < _FULL_LINE or text.count("\n", start, end) != 1:
        return False
    return not _LINE_STANDS_ALONE.match(line) and bool(_GOES_ON.match(text, end))


def unwrapped(text: str) -> str:
    """The text with a space for each line break that only wraps a line: a small generator repeats
    the breaks that it reads."""

    def joined(match: re.Match[str]) -> str:
        return " " if _wraps(text, match.start(), match.end()) else match.group()

    return _BREAK.sub(joined, text)


def _ends(text: str, wrapped: bool = False) -> list[int]:
    """Where sentences end, the white space after them included; never within `Art. 5`, nor, in a
    `wrapped` text, where a line of prose was only broken to fit."""
    ends: list[int] = []
    start = 0
    for match in _END.finditer(text):
        if match.end() == start or _ABBREVIATION.search(text[start : match.end()]):
            continue
        size = len(text[start : match.end()].strip().encode("utf-8", "replace"))
        if "\n" not in match.group() and size < _SHORT:
            continue
        if (
            wrapped
            and match.group().isspace()
            and match.end() - start < _JOINED_MOST
            and _wraps(text, match.start(), match.end())
        ):
            continue
        ends.append(match.end())
        start = match.end()
    return ends


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a document's `text` in order, without the space around them; no blank
    ones."""
    spans: list[Span] = []
    start = 0
    for end in [*_ends(text, wrapped=True), len(text)]:
        piece = text[start:end]
        body = piece.strip()
        if body:
            left = start + len(piece) - len(piece.lstrip())
            spans.append(Span(left, left + len(body)))
        start = end
    return spans


class SentenceStream:
    """Turns deltas into whole sentences: `feed` gives those that are surely complete, white space
    after them included, and `flush` the rest. Joined, they are the text that went in."""

    def __init__(self) -> None:
        self._buffer = ""

    @property
    def pending(self) -> str:
        """What has come of the sentence that is not complete yet."""
        return self._buffer

    def feed(self, text: str) -> list[str]:
        self._buffer += text
        complete: list[str] = []
        start = 0
        for end in _ends(self._buffer):
            rest = self._buffer[end:]
            # What follows may still be a marker that belongs to this sentence, or more white space.
            if not rest or _OPEN_MARKER.match(rest):
                break
            complete.append(self._buffer[start:end])
            start = end
        self._buffer = self._buffer[start:]
        return complete

    def flush(self) -> str:
        rest, self._buffer = self._buffer, ""
        return rest

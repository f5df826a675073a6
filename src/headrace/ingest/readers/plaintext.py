"""Plain text in any encoding."""

from __future__ import annotations

from headrace.ingest.readers.decode import decode
from headrace.ingest.readers.source import Source, one_line, tidy
from headrace.types import Parsed

_LONGEST_TITLE = 60
_SENTENCE_ENDS = tuple("。！？；：，,.!?;:")


def read_text(source: Source) -> Parsed:
    decoded = decode(source)
    text = tidy(decoded.text)
    return Parsed(
        text,
        "text/plain",
        title=_first_line(text) or source.stem,
        metadata={"encoding": decoded.encoding},
        notes=decoded.notes,
    )


def _first_line(text: str) -> str:
    """The first line if it looks like a title: short, no sentence, and a blank line or the
    document's only other structure follows."""
    head = text[:2000].lstrip("\n \t\u3000\ufeff")
    line, found, rest = head.partition("\n")
    line = one_line(line)
    if not found or not line or len(line) > _LONGEST_TITLE or line.endswith(_SENTENCE_ENDS):
        return ""
    return line if not rest.partition("\n")[0].strip() else ""

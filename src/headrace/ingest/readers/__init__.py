"""Reading files: `read` turns any supported file into parsed text, or says why it cannot."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.errors import ReadError
from headrace.ingest.readers.formats import choose
from headrace.ingest.readers.source import ReadLimits, Source
from headrace.types import Parsed, Span

__all__ = ["ReadLimits", "read"]


def read(path: Path, limits: ReadLimits) -> Parsed:
    """Parse the file at `path`. Its reader is chosen by extension and checked against the
    content. Blocks. Raises `ReadError`, whatever is wrong with the file."""
    # A path need not be UTF-8, but its name goes into messages and titles.
    named = Path(os.fsencode(path).decode("utf-8", "backslashreplace"))
    source = Source(named, _load(path, named, limits), limits)
    reader = choose(source)
    try:
        parsed = reader(source)
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError(f"{named.name} needs more memory than there is; split it") from error
    except Exception as error:
        raise ReadError(
            f"{named.name} is damaged or not what its name says "
            f"({type(error).__name__}: {str(error)[:200] or 'no details'}); "
            "open it in its own program and save it again"
        ) from error
    source.check_text(len(parsed.text))
    if not _visible(parsed):
        raise ReadError(f"{named.name} holds no text; nothing to index")
    return parsed


def _load(path: Path, named: Path, limits: ReadLimits) -> bytes:
    try:
        if not path.is_file():
            raise ReadError(f"{named} is not a file")
        with path.open("rb") as file:
            data = file.read(limits.file_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ReadError(f"{named} cannot be opened: {reason}") from error
    if len(data) > limits.file_bytes:
        raise ReadError(
            f"{named.name} is larger than {limits.file_bytes >> 20} MiB; "
            "split it, or raise ingest.max_file_mib"
        )
    if not data.strip():
        raise ReadError(f"{named.name} is empty: it holds no text")
    return data


def _visible(parsed: Parsed) -> bool:
    start = 0
    hidden = [exclusion.span for exclusion in parsed.hidden]
    for span in [*sorted(hidden, key=lambda s: s.start), Span(len(parsed.text), len(parsed.text))]:
        if parsed.text[start : span.start].strip():
            return True
        start = max(start, span.end)
    return False

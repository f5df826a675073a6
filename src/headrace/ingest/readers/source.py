"""What a reader is given, and what all readers share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from headrace.config.options import IngestOptions
from headrace.errors import ReadError
from headrace.types import Heading, Parsed

_MIB = 1 << 20
_TITLE_LENGTH = 200


class ReadLimits(msgspec.Struct, frozen=True):
    """`file_bytes`: largest file; `text_bytes`: most text, as UTF-8, that a file may give, and
    most that an archive may unpack to."""

    file_bytes: int = 256 * _MIB
    text_bytes: int = 64 * _MIB

    @classmethod
    def of(cls, options: IngestOptions) -> ReadLimits:
        return cls(options.max_file_mib * _MIB, options.max_text_mib * _MIB)


class Source(msgspec.Struct, frozen=True):
    """A file's bytes. `path` names it in messages and gives the fallback title."""

    path: Path
    data: bytes
    limits: ReadLimits

    @property
    def stem(self) -> str:
        return self.path.stem

    def check_text(self, characters: int) -> None:
        """Refuse more text than allowed; called while text is being collected, too."""
        if characters > self.limits.text_bytes:
            raise ReadError(
                f"{self.path.name} holds more than {self.limits.text_bytes // _MIB} MiB of text; "
                "split it, or raise ingest.max_text_mib"
            )


Reader: TypeAlias = Callable[[Source], Parsed]

_BROKEN = re.compile("[\x00\ud800-\udfff]")


def tidy(text: str) -> str:
    """Lines end in `\\n`; NUL and lone surrogates, which no index can store, become U+FFFD.
    Nothing else changes: quotations must be what the file says."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _BROKEN.sub("\ufffd", text)


def one_line(text: str) -> str:
    """A title: white space runs as one space, at most 200 characters."""
    return " ".join(text.split())[:_TITLE_LENGTH]


def title_of(text: str, headings: tuple[Heading, ...], start: int, stem: str) -> str:
    """The first heading, if it stands for the whole document: nothing is before it (from `start`
    on), none is above it, and it is the only one of its level or the next follows at once (as in
    a code whose books are files of their own). Otherwise the file's name without extension."""
    if not headings or not headings[0].title:
        return stem
    first, *rest = headings
    if text[start : first.span.start].strip() or any(h.level < first.level for h in rest):
        return stem
    peers = [heading for heading in rest if heading.level == first.level]
    if not peers or not text[first.span.end : peers[0].span.start].strip():
        return first.title
    return stem

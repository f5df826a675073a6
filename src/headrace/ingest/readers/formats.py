"""Which reader reads which file: by extension, unless the content is plainly something else."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from headrace.errors import ReadError
from headrace.ingest.readers.archive import office_kind
from headrace.ingest.readers.source import Reader, Source

READERS: dict[str, str] = {
    ".md": "markdown:read_markdown",
    ".markdown": "markdown:read_markdown",
    ".rst": "rst:read_rst",
    ".txt": "plaintext:read_text",
    ".text": "plaintext:read_text",
    ".log": "plaintext:read_text",
    ".html": "html:read_html",
    ".htm": "html:read_html",
    ".xhtml": "html:read_html",
    ".pdf": "pdf:read_pdf",
    ".docx": "docx:read_docx",
    ".csv": "delimited:read_delimited",
    ".tsv": "delimited:read_delimited",
    ".xlsx": "xlsx:read_xlsx",
    ".jsonl": "jsonl:read_jsonl",
    ".ndjson": "jsonl:read_jsonl",
    ".json": "jsonl:read_json",
}
"""Readers by extension, imported when first used: a folder of text needs no spreadsheet library.
A file of another extension is read as text if it is text."""

_BINARY = {".pdf": "a PDF", ".docx": "a DOCX", ".xlsx": "an XLSX"}
_HTML = re.compile(rb"\s{0,100}(?:<\?xml[^>]{0,200}>\s{0,100})?(?:<!doctype html|<html[\s>])", re.I)
_OTHERS = (
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"II*\0", "a picture (TIFF)"),
    (b"MM\0*", "a picture (TIFF)"),
    (b"RIFF", "a sound, film or picture (RIFF)"),
    (b"ID3", "a sound (MP3)"),
    (b"OggS", "a sound or film (Ogg)"),
    (b"\x1aE\xdf\xa3", "a film (Matroska)"),
    (b"\x1f\x8b", "an archive (gzip); unpack it"),
    (b"BZh", "an archive (bzip2); unpack it"),
    (b"\xfd7zXZ", "an archive (xz); unpack it"),
    (b"7z\xbc\xaf", "an archive (7z); unpack it"),
    (b"Rar!", "an archive (RAR); unpack it"),
    (b"\x28\xb5\x2f\xfd", "an archive (zstd); unpack it"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3", "a database (SQLite)"),
    (b"GGUF", "model weights"),
    (b"{\\rtf", "an RTF file; save it as DOCX or PDF"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def choose(source: Source) -> Reader:
    """The reader for a file. Raises `ReadError` if there is none."""
    data, name = source.data, source.path.name
    suffix = source.path.suffix.lower()
    if b"%PDF-" in data[:1024]:
        return _load(READERS[".pdf"])
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _office(source)
    if data.startswith(_OLE):
        raise ReadError(
            f"{name} is protected by a password, or in the format of Office 97; "
            "save a copy as DOCX, XLSX or PDF without a password"
        )
    for magic, what in _OTHERS:
        if data.startswith(magic):
            raise ReadError(f"{name} is {what}, which holds no text that can be read")
    if suffix in _BINARY:
        raise ReadError(f"{name} is not {_BINARY[suffix]} file, or is damaged; save it again")
    if suffix not in READERS and _HTML.match(data):
        return _load(READERS[".html"])
    return _load(READERS.get(suffix, READERS[".txt"]))


def _office(source: Source) -> Reader:
    kind = office_kind(source.data)
    if kind in ("docx", "xlsx"):
        return _load(READERS[f".{kind}"])
    name = source.path.name
    if kind:
        raise ReadError(f"{name} is a {kind.upper()} file, which is not read; save it as PDF")
    raise ReadError(
        f"{name} is a zip archive, or a damaged office file; unpack it or save it again"
    )


@cache
def _load(place: str) -> Reader:
    module, _, function = place.partition(":")
    reader: Reader = getattr(import_module(f"headrace.ingest.readers.{module}"), function)
    return reader

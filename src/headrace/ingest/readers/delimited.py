"""CSV, TSV and their like, whatever the separator and the encoding."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from io import StringIO

from headrace.errors import ReadError
from headrace.ingest.readers.decode import decode
from headrace.ingest.readers.source import Source, tidy
from headrace.ingest.readers.tables import TableText
from headrace.types import Parsed

_SEPARATORS = ",\t;|"
_SAMPLE_LINES = 60


def read_delimited(source: Source) -> Parsed:
    decoded = decode(source)
    text = tidy(decoded.text).removeprefix("\ufeff")
    tab = source.path.suffix.lower() == ".tsv"
    separator = _separator(text, "\t" if tab else ",")
    table = TableText(source)
    table.table(_records(text, separator, source.path.name))
    return Parsed(
        table.text,
        "text/tab-separated-values" if separator == "\t" else "text/csv",
        title=source.stem,
        rows=tuple(table.rows),
        metadata={"encoding": decoded.encoding},
        notes=decoded.notes,
    )


def _records(text: str, separator: str, name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator)
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ReadError(
                f"{name}, line {reader.line_num}: {error}; is a quotation mark not closed?"
            ) from error
        number += 1
        yield number, cells


def _separator(text: str, default: str) -> str:
    """The separator that cuts the first lines most evenly into the most columns."""
    sample = "\n".join(text[: 1 << 16].split("\n", _SAMPLE_LINES)[:_SAMPLE_LINES])
    best, score = default, 0.0
    for separator in sorted(_SEPARATORS, key=lambda char: char != default):
        try:
            widths = [len(row) for row in csv.reader(StringIO(sample), delimiter=separator) if row]
        except csv.Error:
            continue
        if not widths:
            continue
        width, times = Counter(widths).most_common(1)[0]
        evenness = times / len(widths) * (1 + min(width, 20) / 20) if width > 1 else 0.0
        if evenness > score * 1.05:
            best, score = separator, evenness
    return best

"""XLSX, streamed: sheets are never held as a whole."""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import openpyxl
from openpyxl.utils.cell import range_boundaries

from headrace.ingest.readers.archive import check_archive
from headrace.ingest.readers.source import Source
from headrace.ingest.readers.tables import TableText
from headrace.types import Parsed

_MIME = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_MERGED = re.compile(
    rb"<(?:\w+:)?mergeCell\b[^>]{0,80}?ref=\"([A-Z]{1,3}\d{1,7}:[A-Z]{1,3}\d{1,7})\""
)
_MOST_MERGED = 20_000
_MOST_COLUMNS = 1000
_STEP = 1 << 20


def read_xlsx(source: Source) -> Parsed:
    check_archive(source)
    table = TableText(source)
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns of features that it does not keep
        book = openpyxl.load_workbook(BytesIO(source.data), read_only=True, data_only=True)
        try:
            for sheet in book.worksheets:
                before = len(table.rows)
                table.table(_records(sheet, _merged(source, sheet)), sheet.title)
                if len(table.rows) == before:
                    notes.append(f"sheet {sheet.title!r} holds no rows")
        finally:
            book.close()
    return Parsed(table.text, _MIME, title=source.stem, rows=tuple(table.rows), notes=tuple(notes))


def _records(
    sheet: Any, merged: list[tuple[int, int, int, int]]
) -> Iterator[tuple[int, list[str]]]:
    """Rows with their numbers. A merged area shows its value in each of its rows, in the first
    column: what stands beside it is said of that value."""
    starts: dict[int, list[tuple[int, int, int, int]]] = {}
    for area in merged:
        starts.setdefault(area[1], []).append(area)
    running: list[tuple[tuple[int, int, int, int], str]] = []
    # The size that a file states may be wrong, and far too large.
    sheet.reset_dimensions()
    for number, row in enumerate(sheet.iter_rows(max_col=_MOST_COLUMNS, values_only=True), 1):
        cells = [_show(value) for value in row]
        running = [(area, value) for area, value in running if area[3] >= number]
        for area, value in running:
            if area[0] <= len(cells) and not cells[area[0] - 1]:
                cells[area[0] - 1] = value
        for area in starts.get(number, ()):
            if area[3] > number and area[0] <= len(cells):
                running.append((area, cells[area[0] - 1]))
        yield number, cells


def _show(value: object) -> str:
    """A cell as a person reads it: whole numbers without a point, dates without midnight."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "seconds")
    return str(value)


def _merged(source: Source, sheet: Any) -> list[tuple[int, int, int, int]]:
    """The merged areas (left, top, right, bottom) of a sheet, found in its XML: they stand after
    the rows, where a streaming reader learns of them too late."""
    found: list[tuple[int, int, int, int]] = []
    path = str(getattr(sheet, "_worksheet_path", "")).lstrip("/")
    with zipfile.ZipFile(BytesIO(source.data)) as archive:
        if path not in archive.namelist():
            return []
        with archive.open(path) as file:
            tail = b""
            while block := file.read(_STEP):
                window = tail + block
                for match in _MERGED.finditer(window):
                    left, top, right, bottom = range_boundaries(match[1].decode("ascii"))
                    if None not in (left, top, right, bottom) and match.end() > len(tail):
                        found.append((left, top, right, bottom))
                if len(found) > _MOST_MERGED:
                    return []
                tail = window[-200:]
    return found

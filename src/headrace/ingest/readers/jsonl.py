"""JSON lines, and JSON files with a list: an object is a row, nested keys are joined by dots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from headrace.errors import ReadError
from headrace.ingest.readers.decode import decode
from headrace.ingest.readers.source import Source, tidy
from headrace.ingest.readers.tables import TableText
from headrace.types import Parsed

_MOST_NOTES = 20


def read_jsonl(source: Source) -> Parsed:
    """Lines that are no JSON are noted with their number; the others are kept."""
    decoded = decode(source)
    table = TableText(source)
    bad: list[str] = []
    for number, line in enumerate(tidy(decoded.text).removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            table.row(number, _flat(json.loads(line)))
        except ValueError as error:
            bad.append(f"line {number} is not JSON ({str(error)[:80]})")
        except RecursionError:
            bad.append(f"line {number} is nested too deeply")
    if bad and not table.rows:
        raise ReadError(f"{source.path.name} holds no JSON lines; {bad[0]}")
    more = len(bad) - _MOST_NOTES
    notes = [*bad[:_MOST_NOTES], *([f"{more} more lines are not JSON"] if more > 0 else [])]
    return _parsed(source, table, "application/jsonl", (*decoded.notes, *notes))


def read_json(source: Source) -> Parsed:
    """A list gives a row for each element, anything else is one row."""
    decoded = decode(source)
    try:
        value = json.loads(tidy(decoded.text).removeprefix("\ufeff"))
    except ValueError as error:
        if "\n" in decoded.text.strip():
            return read_jsonl(source)
        raise ReadError(f"{source.path.name} is not JSON: {error}") from error
    table = TableText(source)
    elements: Iterable[object] = value if isinstance(value, list) else [value]
    for number, element in enumerate(elements, 1):
        table.row(number, _flat(element))
    return _parsed(source, table, "application/json", decoded.notes)


def _parsed(source: Source, table: TableText, media: str, notes: tuple[str, ...]) -> Parsed:
    return Parsed(table.text, media, title=source.stem, rows=tuple(table.rows), notes=notes)


def _flat(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            name = tidy(str(name)).strip()
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        if all(not isinstance(item, dict | list) for item in value):
            yield key or "value", ", ".join(_show(item) for item in value)
            return
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{key}.{index}" if key else str(index))
    else:
        yield key or "value", _show(value)


def _show(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return tidy(str(value)).strip()

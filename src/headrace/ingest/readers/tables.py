"""Tables: every row becomes text that can be read alone, `Heading: value` on a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headrace.ingest.readers.source import Source, tidy
from headrace.types import Row, Span

_LOOK_AHEAD = 10
_LONGEST_HEADING = 80

Cells = Sequence[str]


class TableText:
    """Builds the text of one or more tables, with a `Row` for each row that has a value."""

    def __init__(self, source: Source) -> None:
        self.rows: list[Row] = []
        self._source = source
        self._parts: list[str] = []
        self._size = 0

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def table(self, numbered: Iterable[tuple[int, Cells]], sheet: str = "") -> None:
        """Add a table from its rows and their numbers. Lines above the heading row (a caption)
        become text without a row."""
        rows = iter(numbered)
        first = [row for _, row in zip(range(_LOOK_AHEAD), rows, strict=False)]
        place = heading_row([cells for _, cells in first])
        headings: Cells = ()
        for index, (number, cells) in enumerate(first):
            if place is not None and index < place:
                self._write("  ".join(cell for cell in map(_clean, cells) if cell), "\n\n")
            elif index == place:
                headings = [_clean(cell) for cell in cells]
            else:
                self.row(number, named(headings, cells), sheet)
        for number, cells in rows:
            self.row(number, named(headings, cells), sheet)

    def row(self, number: int, values: Iterable[tuple[str, str]], sheet: str = "") -> None:
        """Add one row of (heading, value) pairs; nothing if no value is given."""
        lines = [f"{heading}: {value}" for heading, value in values if value]
        if lines:
            start = self._size
            self._write("\n".join(lines), "\n\n")
            self.rows.append(Row(Span(start, self._size - 2), number, sheet))

    def _write(self, text: str, ends: str) -> None:
        if text:
            self._parts.append(text + ends)
            self._size += len(text) + len(ends)
            self._source.check_text(self._size)


def heading_row(rows: Sequence[Cells]) -> int | None:
    """Which of the first rows holds the headings: the first as wide as the table, if its cells
    are distinct words, and a row follows; `None` if there is none."""
    widths = [sum(bool(cell.strip()) for cell in cells) for cells in rows]
    wide = max(widths, default=0)
    for index, (cells, width) in enumerate(zip(rows, widths, strict=True)):
        if width == 0 or (width == 1 and wide > 2) or (width < wide / 2):
            continue
        names = [cell.strip() for cell in cells if cell.strip()]
        follows = any(widths[index + 1 :])
        return index if follows and _are_headings(names) else None
    return None


def _are_headings(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names) and all(
        len(name) <= _LONGEST_HEADING and not _is_value(name) for name in names
    )


def _is_value(cell: str) -> bool:
    """Numbers, dates and amounts are values; headings have letters."""
    return not any(char.isalpha() for char in cell)


def named(headings: Cells, cells: Cells) -> Iterator[tuple[str, str]]:
    """(heading, value) for each cell; columns without a heading are called by number."""
    for index, cell in enumerate(cells):
        heading = headings[index] if index < len(headings) else ""
        yield heading or f"Column {index + 1}", _value(cell)


def _value(cell: str) -> str:
    return tidy(cell).strip()


def _clean(cell: str) -> str:
    return " ".join(tidy(cell).split())

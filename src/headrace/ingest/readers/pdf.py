"""PDF: the text of each page, with the place of every line on it."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from headrace.errors import ReadError
from headrace.ingest.readers.source import Source, one_line, tidy, title_of
from headrace.types import Heading, PageMark, Parsed, Span

_LOCK = threading.Lock()
"""PDFium keeps global state: one thread at a time."""

_HYPHENS = "\x02\ufffe"  # a hyphen at a line's end, as PDFium reports it
_UNMAPPED = 0.3
_LARGER = 1.15
_LONGEST_HEADING = 100
_MOST_HEADINGS = 0.3
_PROGRAM_TITLES = re.compile(r"(?i)^(?:microsoft word|untitled|document\d*$|\S+\.\w{2,5}$)")


class Line(NamedTuple):
    """A line of text with its end, its box (left, bottom, right, top) in points, and the height
    of its font (0 if unknown)."""

    text: str
    box: tuple[float, float, float, float]
    height: float


def read_pdf(source: Source) -> Parsed:
    with _LOCK:
        return _read(source)


def _read(source: Source) -> Parsed:
    document = _open(source)
    try:
        pages = list(_pages(document, source))
        stated = document.get_metadata_value("Title")
    finally:
        document.close()
    text = "".join(line.text for lines, _ in pages for line in lines)
    _check(source, text, len(pages))
    marks = tuple(_marks(pages))
    headings = tuple(_headings([line for lines, _ in pages for line in lines]))
    title = one_line(tidy(stated or ""))
    if not title or _PROGRAM_TITLES.match(title):
        title = title_of(text, headings, 0, source.stem)
    return Parsed(
        text,
        "application/pdf",
        title=title,
        headings=headings,
        pages=marks,
        notes=_notes(pages),
    )


def _open(source: Source) -> Any:
    try:
        return pypdfium2.PdfDocument(source.data)
    except pypdfium2.PdfiumError as error:
        name = source.path.name
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise ReadError(
                f"{name} is protected by a password; save a copy without one"
            ) from error
        raise ReadError(
            f"{name} is not a PDF that can be opened ({error}); save it again"
        ) from error


def _pages(document: Any, source: Source) -> Iterator[tuple[list[Line], tuple[float, float]]]:
    total = 0
    for index in range(len(document)):
        page = document[index]
        try:
            textpage = page.get_textpage()
            try:
                lines = list(_lines(textpage))
            finally:
                textpage.close()
            total += sum(len(line.text) for line in lines)
            source.check_text(total)
            yield lines, page.get_size()
        finally:
            page.close()


def _lines(textpage: Any) -> Iterator[Line]:
    start, chars = 0, []
    count = textpage.count_chars()
    for index in range(count):
        code = pdfium.FPDFText_GetUnicode(textpage, index)
        chars.append(chr(code) if 0 < code < 0x110000 else "\ufffd")
        if code == 0x0A or index == count - 1:
            text = _clean("".join(chars))
            yield Line(text, _box(textpage, start, len(chars)), _height(textpage, start, chars))
            start, chars = index + 1, []


def _clean(text: str) -> str:
    if "\ud800" <= max(text) <= "\udfff":
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for hyphen in _HYPHENS:
        text = text.replace(hyphen, "-")
    return tidy(text).rstrip("\n") + "\n"


def _box(textpage: Any, start: int, count: int) -> tuple[float, float, float, float]:
    rects = [textpage.get_rect(i) for i in range(textpage.count_rects(start, count))]
    if not rects:
        return (0.0, 0.0, 0.0, 0.0)
    lefts, bottoms, rights, tops = zip(*rects, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _height(textpage: Any, start: int, chars: Sequence[str]) -> float:
    for offset, char in enumerate(chars):
        if not char.isspace():
            _, bottom, _, top = textpage.get_charbox(start + offset, loose=True)
            return round(float(abs(top - bottom)), 1)
    return 0.0


def _check(source: Source, text: str, pages: int) -> None:
    visible = "".join(text.split())
    if not visible:
        raise ReadError(
            f"{source.path.name} holds no text on its {pages} page(s): it is probably scanned; "
            "run text recognition (OCR) on it first"
        )
    if visible.count("\ufffd") > _UNMAPPED * len(visible):
        raise ReadError(
            f"{source.path.name}: its fonts do not say which characters they show; "
            "run text recognition (OCR) on it first"
        )


def _notes(pages: Sequence[tuple[list[Line], tuple[float, float]]]) -> tuple[str, ...]:
    empty = [
        str(number)
        for number, (lines, _) in enumerate(pages, 1)
        if not any(line.text.strip() for line in lines)
    ]
    if not empty:
        return ()
    more = " ..." if len(empty) > 20 else ""
    return (f"no text on page(s) {', '.join(empty[:20])}{more}",)


def _marks(pages: Sequence[tuple[list[Line], tuple[float, float]]]) -> Iterator[PageMark]:
    start = 0
    for number, (lines, size) in enumerate(pages, 1):
        place = start
        boxes = []
        for line in lines:
            end = place + len(line.text)
            if line.text.strip():
                boxes.append((place, end, *line.box))
            place = end
        yield PageMark(number, Span(start, place), size, tuple(boxes))
        start = place


def _headings(lines: Sequence[Line]) -> Iterator[Heading]:
    """Short lines in a font clearly larger than that of most characters; sizes give levels. None
    if so many lines are large that size does not mean heading."""
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.height] += len(line.text.strip())
    if not weights:
        return
    body = weights.most_common(1)[0][0]
    large = [line for line in lines if _is_large(line, body)]
    if not large or len(large) > max(3, _MOST_HEADINGS * len(lines)):
        return
    sizes = sorted({line.height for line in large}, reverse=True)
    place = 0
    for line in lines:
        if _is_large(line, body):
            level = min(6, sizes.index(line.height) + 1)
            yield Heading(Span(place, place + len(line.text)), level, one_line(line.text))
        place += len(line.text)


def _is_large(line: Line, body: float) -> bool:
    words = line.text.strip()
    return (
        body > 0
        and line.height >= _LARGER * body
        and 1 < len(words) <= _LONGEST_HEADING
        and not words.endswith(("。", "；", ".", ";", ",", "，"))
    )

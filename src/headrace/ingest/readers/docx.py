"""DOCX: paragraphs, headings and tables in the order of the document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

import docx
from docx.oxml.ns import qn

from headrace.ingest.readers.archive import check_archive
from headrace.ingest.readers.source import Source, one_line, tidy, title_of
from headrace.types import Heading, Parsed, Span

_MIME = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_STYLE = re.compile(r"(?i)(?:heading|标题|überschrift|titre)\s*([1-9])")
_CONTAINERS = frozenset(
    qn(name) for name in ("w:sdt", "w:sdtContent", "w:customXml", "w:ins", "w:smartTag")
)
_SKIPPED = frozenset((qn("w:del"), qn("w:moveFrom"), qn("w:instrText"))) | {
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
}
_MARKS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_P, _TBL, _TR, _TC, _T = (qn(name) for name in ("w:p", "w:tbl", "w:tr", "w:tc", "w:t"))


class Block(NamedTuple):
    """A paragraph or table row; `level` 0 is no heading."""

    text: str
    level: int
    row: bool = False


def read_docx(source: Source) -> Parsed:
    check_archive(source)
    document = docx.Document(BytesIO(source.data))
    levels = _heading_styles(document)
    parts: list[str] = []
    headings = []
    size = 0
    in_table = False
    for block in _blocks(document.element.body, levels):
        text = tidy(block.text).strip("\n")
        if not text.strip():
            continue
        if in_table and not block.row:
            parts.append("\n")
            size += 1
        in_table = block.row
        ends = "\n" if block.row else "\n\n"
        if block.level:
            span = Span(size, size + len(text) + 1)
            headings.append(Heading(span, block.level, one_line(text)))
        parts.append(text + ends)
        size += len(text) + len(ends)
        source.check_text(size)
    text = "".join(parts)
    stated = one_line(tidy(document.core_properties.title or ""))
    if stated.lower() in ("word document", "untitled"):
        stated = ""
    title = title_of(text, tuple(headings), 0, "") or stated or source.stem
    return Parsed(text, _MIME, title=title, headings=tuple(headings))


def _heading_styles(document: Any) -> dict[str, int]:
    """Heading level by style id: by the style's name, or the outline level it sets."""
    levels = {}
    for style in document.styles.element.iter(qn("w:style")):
        name = style.find(qn("w:name"))
        named = "" if name is None else str(name.get(qn("w:val")) or "")
        outline = style.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")
        if match := _STYLE.fullmatch(named.strip()):
            level = int(match[1])
        elif named.strip().lower() in ("title", "标题"):
            level = 1
        elif outline is not None:
            level = int(outline.get(qn("w:val")) or 9) + 1
        else:
            continue
        if 1 <= level <= 9:
            levels[str(style.get(qn("w:styleId")))] = min(level, 6)
    return levels


def _blocks(element: Any, levels: dict[str, int]) -> Iterator[Block]:
    for child in element:
        if child.tag == _P:
            yield Block(_text(child), _level(child, levels))
        elif child.tag == _TBL:
            yield from _rows(child)
        elif child.tag in _CONTAINERS:
            yield from _blocks(child, levels)


def _level(paragraph: Any, levels: dict[str, int]) -> int:
    properties = paragraph.find(qn("w:pPr"))
    if properties is None:
        return 0
    outline = properties.find(qn("w:outlineLvl"))
    if outline is not None and (outline.get(qn("w:val")) or "9") in "012345":
        return int(outline.get(qn("w:val"))) + 1
    style = properties.find(qn("w:pStyle"))
    return 0 if style is None else levels.get(str(style.get(qn("w:val"))), 0)


def _rows(table: Any) -> Iterator[Block]:
    for row in table.iterchildren(_TR):
        cells = (" ".join(_text(cell).split()) for cell in row.iter(_TC) if _outermost(cell, row))
        yield Block(" | ".join(cells), 0, row=True)


def _outermost(cell: Any, row: Any) -> bool:
    """Not the cell of a table inside a cell, whose text the outer cell has already."""
    parent = cell.getparent()
    while parent is not row and parent.tag != _TC:
        parent = parent.getparent()
    return parent is row


def _text(element: Any) -> str:
    """The text an element shows: insertions with, deletions and duplicates for old programs
    without."""
    parts: list[str] = []
    stack = [element]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            parts.append(node)
        elif node.tag == _T:
            parts.append(node.text or "")
        elif node.tag in _MARKS:
            parts.append(_MARKS[node.tag])
        elif node.tag not in _SKIPPED:
            if node.tag == _P and node is not element:
                stack.append("\n")
            stack.extend(reversed(node))
    return "".join(parts)

"""Make the PDF and the DOCX of `examples/docs` from its text files, byte for byte the same.

    python scripts/make_examples.py [--check]

The PDF names standard fonts (Helvetica, and STSong-Light of Adobe's GB1 collection) and embeds
none, so it stays small and still has a text layer in two scripts.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from docx import Document

DOCS = Path(__file__).parents[1] / "examples" / "docs"
PAGE = (595, 842)  # A4, in points
MARGIN = 64
LEADING = 1.45
CHINESE_TERMS = ("第六条", "第三十六条", "第七十五条", "第七十六条")


def sections(markdown: str) -> Iterator[tuple[int, str, str]]:
    """(level, title, first paragraph) of every heading."""
    for block in re.split(r"^(?=#)", markdown, flags=re.M):
        head = re.match(r"(#+) (.+)\n+(.*)", block)
        if head:
            yield len(head[1]), head[2], head[3].strip()


def first_sentence(paragraph: str) -> str:
    return re.split(r"(?<=[.!?]) ", paragraph, maxsplit=1)[0]


def article(code: str, number: str) -> str:
    """The paragraphs of one article."""
    found = re.search(rf"^{number}　.*?(?=^第|^#|\Z)", code, flags=re.M | re.S)
    assert found, number
    return " ".join(found[0].split())


# PDF -------------------------------------------------------------------------------------------


def summary_lines() -> Iterator[tuple[int, str]]:
    """(font size, text) of the paragraphs; size 0 asks for a new page."""
    handbook = (DOCS / "employee-handbook.md").read_text("utf-8")
    code = (DOCS / "municipal-code.zh.md").read_text("utf-8")
    yield 18, "Handbook of the Weirford Mill Works: summary"
    yield 10, "One sentence from each section. The handbook itself says more, and it prevails."
    for level, title, paragraph in sections(handbook):
        if level == 2:
            yield 13, title
        if level >= 2 and paragraph and not paragraph.startswith("#"):
            prefix = f"{title}: " if level == 3 else ""
            yield 10, prefix + first_sentence(paragraph)
    yield 0, ""
    yield 16, "给员工的市政条例摘录"
    yield 10, "以下条文摘自《堰津市市政管理条例》，全文以条例为准。"
    for number in CHINESE_TERMS:
        yield 11, article(code, number)


def wrapped(text: str, width: float) -> Iterator[str]:
    """Lines no wider than `width` ems: a Chinese character is 1 em, a Latin one about half."""
    line, used = "", 0.0
    for word in re.findall(r"[!-~]+ ?|[^!-~]", text):
        size = sum(0.52 if character < "\u2000" else 1.0 for character in word)
        if line and used + size > width and word not in "，。；、）":
            yield line.rstrip()
            line, used = "", 0.0
        line, used = line + word, used + size
    yield line.rstrip()


def shown(line: str, size: int) -> str:
    """PDF operators that show a line: in Helvetica if it is ASCII, else all in STSong, because
    a change of font inside a line makes text extraction break it."""
    if line.isascii():
        escaped = re.sub(r"([()\\])", r"\\\1", line)
        return f"/F1 {size} Tf ({escaped}) Tj"
    return f"/F2 {size} Tf <{line.encode('utf-16-be').hex()}> Tj"


def page_streams() -> list[str]:
    pages: list[list[str]] = [[]]
    top = PAGE[1] - MARGIN
    y = float(top)
    for size, text in summary_lines():
        lines = list(wrapped(text, (PAGE[0] - 2 * MARGIN) / size)) if size else []
        if not size or y - len(lines) * size * LEADING < MARGIN:
            pages.append([])
            y = float(top)
        for line in lines:
            y -= size * LEADING
            pages[-1].append(f"1 0 0 1 {MARGIN} {y:.1f} Tm {shown(line, size)}")
        y -= 0.5 * size
    return ["BT\n" + "\n".join(page) + "\nET" for page in pages]


def pdf() -> bytes:
    streams = page_streams()
    first = 7  # the object number of the first page; its content follows it
    kids = " ".join(f"{first + 2 * i} 0 R" for i in range(len(streams)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(streams)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H"
        " /DescendantFonts [5 0 R] >>",
        "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /CIDSystemInfo"
        " << /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> /DW 1000 /W [1 95 500]"
        " /FontDescriptor 6 0 R >>",
        "<< /Type /FontDescriptor /FontName /STSong-Light /Flags 6 /FontBBox [-25 -254 1000 880]"
        " /ItalicAngle 0 /Ascent 880 /Descent -120 /CapHeight 880 /StemV 93 >>",
    ]
    for index, stream in enumerate(streams):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {PAGE[0]} {PAGE[1]}]"
            f" /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >>"
            f" /Contents {first + 2 * index + 1} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    title = "<< /Title (Handbook of the Weirford Mill Works: summary) >>"
    return _file([*objects, title])


def _file(objects: list[str]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("ascii")
    start = len(out)
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}".encode("ascii")
    out += f"trailer\n<< /Size {size} /Root 1 0 R /Info {size - 1} 0 R >>\n".encode("ascii")
    out += f"startxref\n{start}\n%%EOF\n".encode("ascii")
    return bytes(out)


# DOCX ------------------------------------------------------------------------------------------


def docx() -> bytes:
    """The safety chapter of the handbook with the glossary as a table."""
    handbook = (DOCS / "employee-handbook.md").read_text("utf-8")
    document = Document()
    document.core_properties.title = "Safety card of the Weirford Mill Works"
    document.core_properties.author = "Weirford Mill Works"
    document.add_heading("Safety card of the Weirford Mill Works", 0)
    inside = False
    for level, title, paragraph in sections(handbook):
        inside = title == "Health and safety" if level == 2 else inside
        if inside:
            document.add_heading(title, level - 1)
            if not paragraph.startswith("#"):
                document.add_paragraph(paragraph)
    document.add_heading("Words on the signs", 1)
    with (DOCS / "glossary.csv").open(encoding="utf-8", newline="") as file:
        rows = [row[:3] for row in csv.reader(file)][:15]
    table = document.add_table(len(rows), 3)
    for cells, row in zip(table.rows, rows, strict=True):
        for cell, text in zip(cells.cells, row, strict=True):
            cell.text = text
    buffer = io.BytesIO()
    document.save(buffer)
    return _without_times(buffer.getvalue())


def _without_times(archive: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0))
            new.writestr(entry, old.read(name), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def main() -> int:
    made = {"handbook-summary.pdf": pdf(), "safety-card.docx": docx()}
    if "--check" in sys.argv:
        stale = [name for name, data in made.items() if (DOCS / name).read_bytes() != data]
        print(f"not up to date: {', '.join(stale)}" if stale else "examples are up to date")
        return 1 if stale else 0
    for name, data in made.items():
        (DOCS / name).write_bytes(data)
        print(f"{DOCS / name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Every format, and every way in which a file can be bad."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import docx
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import ReadError
from headrace.ingest.chunkers import chunk, unaccounted
from headrace.ingest.readers import ReadLimits, read
from headrace.ingest.readers.formats import READERS
from headrace.types import Parsed


def parse(folder: Path, name: str, data: bytes | str, limits: ReadLimits | None = None) -> Parsed:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    parsed = read(path, limits or ReadLimits())
    for heading in parsed.headings:
        assert heading.span.of(parsed.text).strip()
    _, chunking = chunk(parsed, "auto", 400)
    assert unaccounted(parsed, chunking) == []
    return parsed


def outline(parsed: Parsed) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in parsed.headings]


def pdf(pages: list[list[tuple[int, int, str]]], encrypt: bytes = b"") -> bytes:
    """A PDF with lines of (baseline in points, font size, text)."""
    objects = [b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    tree = 2 + 2 * len(pages)
    kids = []
    for lines in pages:
        stream = "".join(f"BT /F1 {size} Tf 72 {y} Td ({text}) Tj ET\n" for y, size, text in lines)
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream.encode()))
        objects.append(
            b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 1 0 R >> >> >>" % (tree, len(objects))
        )
        kids.append(b"%d 0 R" % len(objects))
    objects.append(b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), b" ".join(kids)))
    objects.append(b"<< /Type /Catalog /Pages %d 0 R >>" % tree)
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root %d 0 R " % (len(objects) + 1, len(objects))
    return out + encrypt + b">>\nstartxref\n%d\n%%%%EOF\n" % table


def word() -> bytes:
    document = docx.Document()
    document.add_heading("Handbook", 0)
    document.add_heading("Leave", 1)
    document.add_paragraph("Ten days a year.")
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ("Grade", "Days", "A", "12"), strict=True):
        cell.text = text
    document.add_heading("Pay", 2)
    document.add_paragraph("Monthly.")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "费用"
    for row in (["Prices of 2024"], ["Item", "Price", "Note"], ["A", 1.0, None], [None, 2.5, "x"]):
        sheet.append(row)
    sheet.merge_cells("A3:A4")
    book.create_sheet("empty")
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_markdown(tmp_path: Path) -> None:
    text = (
        "---\ntitle: Terms\nowner: Anna\n---\n<!-- INFO END -->\n\n# The **big** `one`\n\ntext\n\n"
        "Setext\n------\n\n```\n# no heading\n<!-- kept -->\n```\n"
    )
    parsed = parse(tmp_path, "a.md", text.replace("\n", "\r\n"))
    assert parsed.text == text
    assert parsed.title == "Terms"
    assert parsed.metadata == {"title": "Terms", "owner": "Anna"}
    assert outline(parsed) == [(1, "The big one"), (2, "Setext")]
    assert parsed.headings[1].span.of(text) == "Setext\n------\n"
    assert [(e.reason, e.span.of(text)) for e in parsed.hidden] == [
        ("front matter", text[: text.index("<!--")]),
        ("comment", "<!-- INFO END -->\n"),
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Only\n\ntext\n", "Only"),
        ("# A\n\ntext\n\n# B\n\ntext\n", "notes"),
        ("# Code\n\n# Book\n\ntext\n", "Code"),
        ("text\n\n# A\n\ntext\n", "notes"),
        ("## A\n\ntext\n\n# B\n", "notes"),
    ],
)
def test_title_of_markdown(tmp_path: Path, text: str, title: str) -> None:
    assert parse(tmp_path, "notes.md", text).title == title


def test_restructured_text(tmp_path: Path) -> None:
    text = (
        ".. A licence\n.. Another line\n\n========\n Manual\n========\n\nIntro.\n\n"
        "Setup\n-----\n\n.. note::\n   kept\n\n安装指南\n--------\n\n.. hidden\n   too\n\nEnd.\n"
    )
    parsed = parse(tmp_path, "a.rst", text)
    assert parsed.title == "Manual"
    assert outline(parsed) == [(1, "Manual"), (2, "Setup"), (2, "安装指南")]
    hidden = "".join(e.span.of(text) for e in parsed.hidden)
    assert hidden == ".. A licence\n.. Another line\n.. hidden\n   too\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("劳动合同法", "gbk"),
        ("第一条 为了保护劳动者", "gb18030"),
        ("员工手册\n第一章 总则\n本手册适用于全体员工。", "gbk"),
        ("编号,名称\n1,水渠\n", "gbk"),
        ("厝：房屋、家。", "gbk"),
        ("磨坊", "gbk"),
        ("中華民國憲法第一條", "big5"),
        ("こんにちは世界。", "shift_jis"),
        ("これは日本語の文章です。", "euc_jp"),
        ("무료 강의를 듣는다", "euc_kr"),
        ("Un café à Noël, où? Déjà vu.", "latin-1"),
        ("It’s “quoted” text – fine…", "cp1252"),
        ("你好，世界 hello", "utf-8-sig"),
        ("你好，世界 hello", "utf-16"),
        ("hello world\n", "utf-16-le"),
        ("你好，世界 hello", "utf-32"),
    ],
)
def test_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    assert parse(tmp_path, "a.txt", text.encode(encoding)).text == text


def test_a_broken_character_is_replaced_and_noted(tmp_path: Path) -> None:
    parsed = parse(tmp_path, "a.txt", ("法律" * 500).encode()[:-1])
    assert parsed.text.endswith("法\ufffd")
    assert "utf-8" in parsed.notes[0]


def test_nul_becomes_a_mark_and_nothing_else_changes(tmp_path: Path) -> None:
    parsed = parse(tmp_path, "a.txt", "ﬁne ３ＧＰＰ\x00 e\u0301\r\nx\ry")
    assert parsed.text == "ﬁne ３ＧＰＰ\ufffd e\u0301\nx\ny"


def test_html(tmp_path: Path) -> None:
    page = (
        "<html><head><meta charset=gb2312><title>手册 &amp; 更多</title><style>x{}</style></head>"
        "<body><nav>MENU</nav><h1>员工<b>手册</b></h1><p>He<i>llo</i>\n &lt;world&gt;<br>two"
        "<ul><li>a<li>b</ul><table><tr><th>k<th>v<tr><td>1<td>2</table><pre>x\n  y</pre>"
        "<script>evil()</script><p hidden>no</p><p style='display: none'>no</p><h2>节</h2>end"
    )
    parsed = parse(tmp_path, "a.html", page.encode("gbk"))
    assert parsed.title == "手册 & 更多"
    assert outline(parsed) == [(1, "员工手册"), (2, "节")]
    assert parsed.text == (
        "员工手册\n\nHello <world>\ntwo\n\n- a\n- b\n\nk | v\n1 | 2\n\nx\n  y\n\n节\n\nend\n"
    )


def test_html_nested_without_end_is_refused_at_once(tmp_path: Path) -> None:
    assert "deep" in parse(tmp_path, "a.html", "<div>" * 3000 + "deep").text
    assert "many" in parse(tmp_path, "a.html", "<p>x<li>y<br/>" * 9000 + "many").text
    with pytest.raises(ReadError, match="nests"):
        parse(tmp_path, "a.html", "<div>" * 100_000 + "deep")


def test_pdf_pages_lines_and_headings(tmp_path: Path) -> None:
    data = pdf(
        [
            [(780, 24, "Big Title"), (740, 12, "Body text of page one."), (720, 12, "More here.")],
            [(780, 16, "Section Two"), (740, 12, "Body of page two is here.")],
        ]
    )
    parsed = parse(tmp_path, "a.pdf", data)
    assert parsed.text == (
        "Big Title\nBody text of page one.\nMore here.\nSection Two\nBody of page two is here.\n"
    )
    assert outline(parsed) == [(1, "Big Title"), (2, "Section Two")]
    assert [page.span.of(parsed.text).split("\n")[0] for page in parsed.pages] == [
        "Big Title",
        "Section Two",
    ]
    start, end, left, bottom, right, top = parsed.pages[0].lines[1]
    assert parsed.text[start:end] == "Body text of page one.\n"
    assert 70 < left < right < 250
    assert 735 < bottom < 745 < top < 755


def test_docx(tmp_path: Path) -> None:
    parsed = parse(tmp_path, "a.docx", word())
    assert parsed.title == "Handbook"
    assert outline(parsed) == [(1, "Handbook"), (1, "Leave"), (2, "Pay")]
    assert parsed.text.split("\n\n") == [
        "Handbook", "Leave", "Ten days a year.", "Grade | Days\nA | 12", "Pay", "Monthly.", "",
    ]  # fmt: skip


def test_xlsx_rows_stand_alone(tmp_path: Path) -> None:
    parsed = parse(tmp_path, "prices.xlsx", workbook())
    assert [(row.number, row.sheet, row.span.of(parsed.text)) for row in parsed.rows] == [
        (3, "费用", "Item: A\nPrice: 1"),
        (4, "费用", "Item: A\nPrice: 2.5\nNote: x"),
    ]
    assert parsed.text.startswith("Prices of 2024\n\n")
    assert parsed.notes == ("sheet 'empty' holds no rows",)


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("a.csv", "术语;释义\n水渠;\"引水; 到轮\"\n厝;房屋\n".encode("gbk"),
         ["术语: 水渠\n释义: 引水; 到轮", "术语: 厝\n释义: 房屋"]),
        ("a.csv", b"name,age\r\nAnn,3\r\n,\r\nBob,,extra\r\n",
         ["name: Ann\nage: 3", "name: Bob\nColumn 3: extra"]),
        ("a.tsv", b"1\t2\n3\t4\n", ["Column 1: 1\nColumn 2: 2", "Column 1: 3\nColumn 2: 4"]),
        ("a.csv", b'q,a\nx,"two\nlines"\n', ["q: x\na: two\nlines"]),
        ("a.jsonl", b'{"a":{"b":[1,2]},"c":true}\n\n{"l":[{"x":1}]}\n',
         ["a.b: 1, 2\nc: true", "l.0.x: 1"]),
        ("a.json", b'[{"a": "\\ud800"}, 5]', ["a: \ufffd", "value: 5"]),
    ],
)  # fmt: skip
def test_rows(tmp_path: Path, name: str, data: bytes, rows: list[str]) -> None:
    parsed = parse(tmp_path, name, data)
    assert [row.span.of(parsed.text) for row in parsed.rows] == rows


def test_bad_json_lines_are_noted_and_the_others_kept(tmp_path: Path) -> None:
    parsed = parse(tmp_path, "a.jsonl", '{"a": 1}\nbad\n' + "[" * 100_000 + '\n{"a": 2}\n')
    assert [row.number for row in parsed.rows] == [1, 4]
    assert [note.split(" is ")[0] for note in parsed.notes] == ["line 2", "line 3"]


LOCKED = (
    b"/ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 "
    b"/O <" + b"11" * 32 + b"> /U <" + b"22" * 32 + b"> >> "
)
SHEET = b"<worksheet><sheetData/></worksheet>"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.md", b"", "no text"),
        ("a.txt", b" \n\t", "no text"),
        ("a.md", b"---\nx: y\n---", "no text"),
        ("a.html", b"<html><script>x</script>", "no text"),
        ("a.csv", b",,\n,,\n", "no text"),
        ("a.txt", bytes(range(32)) * 50, "binary"),
        ("a.csv", b"\x89PNG\r\n\x1a\n0000", "picture"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "password"),
        ("a.pdf", b"hello", "not a PDF"),
        ("a.pdf", b"%PDF-1.7 nothing", "cannot be opened|can be opened"),
        ("a.pdf", pdf([[]]), "scanned"),
        ("a.pdf", pdf([[(700, 12, "secret")]], LOCKED), "password"),
        ("a.docx", b"PK\x03\x04 broken", "damaged"),
        ("a.docx", word()[:-300], "damaged"),
        ("a.zip", zipped({"a.txt": b"x"}), "zip archive"),
        ("a.pptx", zipped({"ppt/presentation.xml": b"<x/>"}), "PPTX"),
        ("a.docx", zipped({"word/document.xml": bytes(30_000_000)}), "zip bomb"),
        ("a.xlsx", zipped({"xl/workbook.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"}),
         "entities"),
        ("a.xlsx", zipped({"xl/workbook.xml": b"<not a workbook", "xl/s.xml": SHEET}), "damaged"),
        ("a.jsonl", b"not json\nat all\n", "no JSON"),
        ("a.json", b"{", "not JSON"),
        ("a.csv", b'a,b\n1,"' + b"x" * 200_000, "line 2"),
    ],
)  # fmt: skip
def test_bad_files_say_what_is_wrong(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        parse(tmp_path, name, data)


def test_files_above_the_limits(tmp_path: Path) -> None:
    limits = ReadLimits(file_bytes=1 << 20, text_bytes=1 << 19)
    many = zipped({f"xl/{n}": b"ab" * 400_000 for n in range(8)})
    with pytest.raises(ReadError, match="zip bomb"):
        parse(tmp_path, "a.xlsx", many, limits)
    with pytest.raises(ReadError, match="max_file_mib"):
        parse(tmp_path, "a.txt", b"x" * ((1 << 20) + 1), limits)
    for name, data in (
        ("a.txt", b"x" * 600_000),
        ("a.html", b"<p>word</p>" * 90_000),
        ("a.csv", b"heading,other\n" + b"aaa,bbb\n" * 90_000),
    ):
        with pytest.raises(ReadError, match="max_text_mib"):
            parse(tmp_path, name, data, limits)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="not a file"):
        read(tmp_path, ReadLimits())
    with pytest.raises(ReadError, match="not a file"):
        read(tmp_path / "missing.md", ReadLimits())


def test_content_decides_where_the_extension_is_wrong(tmp_path: Path) -> None:
    assert parse(tmp_path, "a.txt", word()).title == "Handbook"
    assert parse(tmp_path, "b.md", pdf([[(700, 12, "A page.")]])).pages
    assert parse(tmp_path, "page", "<!doctype html><p>x").media_type == "text/html"
    assert parse(tmp_path, "LICENSE", "free\n").media_type == "text/plain"


ODD = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([word(), workbook(), pdf([[(700, 12, "A page.")]]), b"a,b\n1,2\n", b'{"a":1}\n',
                     b"# t\n\n<!-- c -->\n", b"<h1>a</h1>", b"t\n=\n"]),
)  # fmt: skip


@pytest.mark.slow
@given(
    suffix=st.sampled_from([*READERS, "", ".bin"]),
    data=ODD,
    junk=st.binary(max_size=40),
    place=st.floats(0, 1),
)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_read_or_refused(
    tmp_path: Path, suffix: str, data: bytes, junk: bytes, place: float
) -> None:
    at = int(place * len(data))
    with suppress(ReadError):
        parsed = parse(tmp_path, f"f{suffix}", data[:at] + junk + data[at + len(junk) :])
        assert parsed.text.strip()
        assert not set(parsed.text) & {"\r", "\x00"}
        parsed.text.encode()

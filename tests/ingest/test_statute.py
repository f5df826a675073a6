"""Statutes: what is an article, what is a reference, and what the path says."""

from __future__ import annotations

import pytest

from headrace.ingest.chunkers import chunk, unaccounted
from headrace.ingest.chunkers.markers import number_value
from headrace.types import Heading, Parsed, Span


def articles(text: str, title: str = "", budget: int = 400) -> list[tuple[tuple[str, ...], str]]:
    parsed = Parsed(text, "text/plain", title=title)
    _, chunking = chunk(parsed, "statute", budget)
    assert unaccounted(parsed, chunking) == []
    return [(piece.path, piece.span.of(text)) for piece in chunking.chunks]


def labels(text: str) -> list[str]:
    found: list[str] = []
    for path, _ in articles(text):
        if path and path[-1:] != tuple(found[-1:]):
            found.append(path[-1])
    return found


def test_units_and_article_make_the_path() -> None:
    text = (
        "第一编　总则\n第一章　基本规定\n第一条　为了甲，制定本法。\n第二条　乙。\n"
        "第二章　自然人\n第一节　能力\n第三条　丙。\n第二编　物权\n第四条　丁。\n"
    )
    assert [path for path, _ in articles(text, "民法典")] == [
        ("民法典", "第一编 总则", "第一章 基本规定", "第一条"),
        ("民法典", "第一编 总则", "第一章 基本规定", "第二条"),
        ("民法典", "第一编 总则", "第二章 自然人", "第一节 能力", "第三条"),
        ("民法典", "第二编 物权", "第四条"),
    ]


def test_references_at_a_lines_start_are_no_articles() -> None:
    text = (
        "第一条 依照本法\n第四十四条的规定处理。\n第四十四条第一款规定的，\n第四十五条、第六条\n"
        "第五十条规定的除外。\n第二条 完。\n"
    )
    assert labels(text) == ["第一条", "第二条"]


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("第四十四条之一 甲", "第四十四条之一"),
        ("第 44 条 甲", "第44条"),
        ("### 第四十四条 甲", "第四十四条"),
        ("**第四十四条** 甲", "第四十四条"),
        ("第四十四条【加班】甲", "第四十四条"),
        ("\u3000\u3000第四十四条\u3000甲", "第四十四条"),
        ("Article 44. Overtime", "Article 44"),
        ("ARTICLE XLIV Overtime", "ARTICLE XLIV"),
        ("Section 3.1 Overtime", "Section 3.1"),
        ("Sec. 4 Overtime", "Sec. 4"),
        ("§ 12 Overtime", "§ 12"),
    ],
)
def test_forms_of_articles(line: str, label: str) -> None:
    assert labels(line + "\n") == [label]


@pytest.mark.parametrize(
    "line",
    ["Section 3.1 of this Code applies", "Article 12, paragraph 2", "Article 5(2) says",
     "section 4", "第四十四条规定甲", "Sections differ"],
)  # fmt: skip
def test_forms_of_references(line: str) -> None:
    assert labels(f"some text goes on\n{line}\n") == []


def test_articles_without_a_space_must_continue_the_count() -> None:
    assert labels("第一条为了甲。\n第二条国家乙。\n第九条外的丙。\n第三条公民丁。\n") == [
        "第一条",
        "第二条",
        "第三条",
    ]


def test_english_chapters_and_sections() -> None:
    text = (
        "Municipal Code\n\nPart I General\n\nChapter II Noise\n\n"
        "Section 1. Quiet hours begin at ten.\n\n"
        "As provided in\nSection 9 of the Act.\n\nSection 2. Dogs shall be quiet.\n"
    )
    paths = [path for path, _ in articles(text, "Municipal Code")]
    assert paths == [
        ("Municipal Code",),
        ("Municipal Code", "Part I General", "Chapter II Noise", "Section 1"),
        ("Municipal Code", "Part I General", "Chapter II Noise", "Section 2"),
    ]


def test_the_fewer_of_articles_and_sections_are_units() -> None:
    text = (
        "Article I Powers\n\nSection 1. A.\n\nSection 2. B.\n\nArticle II Courts\n\nSection 1. C.\n"
    )
    assert [path for path, _ in articles(text)] == [
        ("Article I Powers", "Section 1"),
        ("Article I Powers", "Section 2"),
        ("Article II Courts", "Section 1"),
    ]


def test_table_of_contents_is_excluded() -> None:
    text = (
        "某法\n\n目　录\n第一章　总则\n第二章　附则\n\n"
        "第一章　总则\n第一条　甲。\n第二章　附则\n第二条　乙。\n"
    )
    parsed = Parsed(text, "text/plain", title="某法")
    name, chunking = chunk(parsed, "auto", 400)
    assert name == "statute"
    assert [path[1:] for path in (piece.path for piece in chunking.chunks)] == [
        (),
        ("第一章 总则", "第一条"),
        ("第二章 附则", "第二条"),
    ]
    (table,) = (e for e in chunking.exclusions if e.reason == "table of contents")
    assert table.span.of(text) == "目　录\n第一章　总则\n第二章　附则\n\n"


def test_long_article_is_cut_at_paragraphs_and_keeps_its_path() -> None:
    items = "\n\n".join(f"（{n}）{'安排劳动者延长工作时间的' * 6}；" for n in "一二三四五六七八")
    text = f"第一条 有下列情形之一的：\n\n{items}\n\n第二条 完。\n"
    pieces = [piece for path, piece in articles(text, "某法", 200) if path[-1] == "第一条"]
    assert len(pieces) > 2
    assert all(piece.startswith(("第一条", "（")) and piece.endswith("；") for piece in pieces)


def test_amendments_are_cut_at_numbered_items() -> None:
    text = "修正案\n\n一、将第一条修改为：“甲。”\n\n“乙。”\n\n二、将第二条修改为：“丙。”\n"
    assert [path for path, _ in articles(text, "修正案")] == [
        ("修正案",),
        ("修正案", "一"),
        ("修正案", "二"),
    ]


def test_two_titles_in_a_row_are_title_and_book() -> None:
    text = "# 民法典\n\n# 合同编\n\n## 第一章 通则\n\n第一条 甲。\n\n第二条 乙。\n"
    headings = tuple(
        Heading(Span(text.index(line), text.index(line) + len(line) + 1), level, title)
        for line, level, title in (
            ("# 民法典", 1, "民法典"),
            ("# 合同编", 1, "合同编"),
            ("## 第一章 通则", 2, "第一章 通则"),
        )
    )
    parsed = Parsed(text, "text/markdown", title="民法典", headings=headings)
    name, chunking = chunk(parsed, "auto", 400)
    assert name == "statute"
    assert chunking.chunks[0].path == ("民法典", "合同编", "第一章 通则", "第一条")


def test_prose_that_cites_articles_is_no_statute() -> None:
    text = "第一条 的问题\n" + "本文讨论劳动法第四十四条的适用，以及法院的做法。\n" * 30
    name, _ = chunk(Parsed(text, "text/plain"), "auto", 400)
    assert name == "plain"


@pytest.mark.parametrize(
    ("numeral", "value"),
    [("四十四", 44), ("十", 10), ("一千二百六十", 1260), ("一百零三", 103), ("二〇二四", 2024),
     ("４４", 44), ("44", 44), ("3.1", 3), ("XIV", 14), ("两百", 200), ("", 0), ("A", 0)],
)  # fmt: skip
def test_numerals(numeral: str, value: int) -> None:
    assert number_value(numeral) == value

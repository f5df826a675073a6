"""What must hold for every chunker on any text, and what each is for."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import BadRequest
from headrace.ingest.chunkers import CHUNKERS, chunk, estimate_tokens, unaccounted
from headrace.types import Chunking, Exclusion, Heading, Parsed, Row, Span

LINES = st.sampled_from(
    [
        "第一条 为了保护劳动者的合法权益，制定本法。",
        "第二条　在中华人民共和国境内的企业，适用本法。",
        "第四十四条之一 有下列情形之一的：",
        "（一）安排劳动者延长工作时间的；",
        "依照本法第四十四条的规定，",
        "第四十四条的规定",
        "第一编 总则",
        "第二章　促进就业",
        "第三节 其他",
        "目　录",
        "附则",
        "一、总体要求",
        "二、主要任务",
        "Article 12 Scope",
        "Section 3.1. The tenant shall pay. And more!",
        "Chapter II General provisions",
        "Sec. 4",
        "Contents",
        "# heading",
        "word " * 60,
        "没有标点的很长的一句话" * 40,
        "a" * 700,
        "e\u0301\u0302" * 200,
        "👩\u200d👩\u200d👧 family",
        "\u200b\ufeff",
        "   ",
        "",
        "",
        "<!-- note -->",
    ]
)
TEXTS = st.lists(st.one_of(LINES, st.text(max_size=30)), max_size=30).map("\n".join)


@st.composite
def parsed_texts(draw: st.DrawFn) -> Parsed:
    """A text with some of its lines as headings, some as rows, some hidden."""
    text = draw(TEXTS).encode("utf-8", "replace").decode("utf-8")
    headings, rows, hidden = [], [], []
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        span = Span(start, min(start + len(line) + 1, len(text)))
        role = draw(st.sampled_from(["text", "text", "heading", "row", "hidden"]))
        if role == "heading" and span:
            headings.append(Heading(span, draw(st.integers(1, 4)), " ".join(line.split())))
        elif role == "row" and line:
            rows.append(Row(Span(start, start + len(line)), number, draw(st.sampled_from("ab"))))
        elif role == "hidden":
            hidden.append(Exclusion(span, "comment"))
        start += len(line) + 1
    return Parsed(
        text,
        "text/plain",
        title=draw(st.sampled_from(["", "劳动法", "title " * 80])),
        headings=tuple(headings),
        rows=tuple(rows),
        hidden=tuple(hidden),
    )


@pytest.mark.parametrize("chunker", [*CHUNKERS, "auto"])
@given(parsed=parsed_texts(), budget=st.sampled_from([32, 80, 400]))
@settings(max_examples=120, deadline=None)
def test_nothing_is_lost_and_budgets_hold(chunker: str, parsed: Parsed, budget: int) -> None:
    name, chunking = chunk(parsed, chunker, budget)
    assert name in CHUNKERS
    assert unaccounted(parsed, chunking) == []
    for exclusion in chunking.exclusions:
        assert exclusion.reason
        if exclusion.reason == "blank":
            assert exclusion.span.of(parsed.text).isspace()
    hidden = {place for hide in parsed.hidden for place in range(hide.span.start, hide.span.end)}
    for piece in chunking.chunks:
        text = piece.span.of(parsed.text)
        assert text
        assert text == text.strip()
        assert hidden.isdisjoint(range(piece.span.start, piece.span.end))
        tokens = estimate_tokens(text) + sum(estimate_tokens(title) + 1 for title in piece.path)
        assert tokens <= budget or _is_one_cluster(text)
    starts = [piece.span.start for piece in chunking.chunks]
    assert starts == sorted(starts)
    for before, after in itertools.pairwise(chunking.chunks):
        assert before.span.end <= after.span.start


def _is_one_cluster(text: str) -> bool:
    return all(unicodedata.category(char).startswith("M") or char == "\u200d" for char in text[1:])


@given(parsed=parsed_texts())
@settings(max_examples=100, deadline=None)
def test_headings_are_never_crossed(parsed: Parsed) -> None:
    _, chunking = chunk(parsed, "headings", 100)
    for piece in chunking.chunks:
        for heading in parsed.headings:
            assert not piece.span.start < heading.span.start < piece.span.end


def test_a_lost_character_is_reported() -> None:
    parsed = Parsed("abc def", "text/plain")
    assert unaccounted(parsed, Chunking((), (Exclusion(Span(0, 3), "x"),))) == [Span(3, 7)]


def test_unknown_chunker_is_refused_with_the_known_names() -> None:
    with pytest.raises(BadRequest, match="statute"):
        chunk(Parsed("a", "text/plain"), "magic", 100)


def test_combining_sequences_stay_whole() -> None:
    text = "e\u0301" * 3000
    _, chunking = chunk(Parsed(text, "text/plain"), "plain", 50)
    assert len(chunking.chunks) > 10
    assert all(text[piece.span.start] == "e" for piece in chunking.chunks)


def test_long_paragraph_is_cut_after_sentences() -> None:
    sentence = "用人单位应当按照国家有关规定支付劳动报酬。"
    text = sentence * 60
    _, chunking = chunk(Parsed(text, "text/plain"), "plain", 100)
    assert len(chunking.chunks) > 5
    assert all(piece.span.of(text).endswith("。") for piece in chunking.chunks)


def test_headings_give_the_path_and_are_listed_as_exclusions() -> None:
    text = "# Book\n\n## Pay\n\nMonthly.\n\n## Leave\n\n### Annual\n\nTen days.\n"
    headings = tuple(
        Heading(Span(start, text.index("\n", start) + 1), level, title)
        for start, level, title in (
            (text.index("# Book"), 1, "Book"),
            (text.index("## Pay"), 2, "Pay"),
            (text.index("## Leave"), 2, "Leave"),
            (text.index("### Annual"), 3, "Annual"),
        )
    )
    parsed = Parsed(text, "text/markdown", title="Book", headings=headings)
    name, chunking = chunk(parsed, "auto", 100)
    assert name == "headings"
    assert [(piece.path, piece.span.of(text)) for piece in chunking.chunks] == [
        (("Book", "Pay"), "Monthly."),
        (("Book", "Leave", "Annual"), "Ten days."),
    ]
    listed = {e.span.of(text).strip() for e in chunking.exclusions if e.reason.startswith("head")}
    assert listed == {"# Book", "## Pay", "## Leave", "### Annual"}


def test_heading_without_a_section_is_a_chunk() -> None:
    text = "# A\n\ntext\n\n# Only a heading\n"
    at = text.index("# Only")
    parsed = Parsed(
        text,
        "text/markdown",
        headings=(Heading(Span(0, 4), 1, "A"), Heading(Span(at, len(text)), 1, "Only a heading")),
    )
    _, chunking = chunk(parsed, "headings", 100)
    assert [piece.span.of(text) for piece in chunking.chunks] == ["text", "# Only a heading"]


def test_rows_carry_title_and_sheet() -> None:
    text = "Term: a\nMeaning: b\n\nTerm: c\n"
    parsed = Parsed(
        text, "text/csv", title="glossary", rows=(Row(Span(0, 18), 2, "S1"), Row(Span(20, 27), 3))
    )
    name, chunking = chunk(parsed, "auto", 100)
    assert name == "rows"
    assert [(piece.path, piece.span.of(text)) for piece in chunking.chunks] == [
        (("glossary", "S1"), "Term: a\nMeaning: b"),
        (("glossary",), "Term: c"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    ["a", "中", " ", "\n", ".", "。", "第", "第一条 ", "第一条\n", "目录\n", "Section 1 ", "((((",
     "<!--",      "\u0301", "-\n", "a b\n\n", "一、\n", "#"],
)  # fmt: skip
def test_odd_text_is_cut_in_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    for chunker in ("plain", "statute"):
        parsed = Parsed(text, "text/plain")
        _, chunking = chunk(parsed, chunker, 400)
        assert unaccounted(parsed, chunking) == []

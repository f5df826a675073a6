"""What of a passage is quoted."""

from __future__ import annotations

import pytest

from headrace.pipeline.evidence import Passage
from headrace.pipeline.quotable import asked_for, quotable, whole
from headrace.types import Hit, Span

FILLER = "This sentence makes the passage too long to be quoted in one piece, as most are. " * 4


def passage(text: str, *path: str) -> Passage:
    return Passage(
        0, Hit(1, "d", "/d.md", "Code", path, Span(10, 10 + len(text)), text, 1.0, {}, None)
    )


def texts(text: str) -> list[str]:
    return [span.of(text) for span in quotable(passage(text))]


@pytest.mark.parametrize(
    ("line", "quoted"),
    [
        ("- The gate opens at six.", "The gate opens at six."),
        ("* * nested item of a list", "nested item of a list"),
        ("> said by somebody else", "said by somebody else"),
        ("| Port 8085 | the gate |", "Port 8085 | the gate"),
        ("-5 degrees at the gate", "-5 degrees at the gate"),
        ("a|b are the pipes of the gate |", "a|b are the pipes of the gate |"),
    ],
)
def test_marks_of_lists_and_tables_are_left_out(line: str, quoted: str) -> None:
    assert quoted in texts(f"{FILLER}\n{line}\n")


@pytest.mark.parametrize(
    "line", ["=========", "<https://example.org/a/b>", "|---|---|", "the gate."]
)
def test_what_says_nothing_is_not_quoted(line: str) -> None:
    assert texts(f"{FILLER}\n{line}\n") == texts(FILLER)


def test_an_introduction_comes_with_its_list() -> None:
    items = "The contract ends:\n\n(1) when it expires;\n\n(2) when one side dies."
    assert items in texts(f"{FILLER}\n\n{items}")
    assert items in texts(f"{FILLER}\n\n{items}\n\nOther contracts end as follows:\n\nnever.")


def test_a_provision_is_found_by_its_number_and_quoted_whole() -> None:
    text = "第四十四条 有下列情形之一的，劳动合同终止：\n\n（一）期满的；\n"
    article = passage(text, "劳动合同法", "第四十四条")
    assert asked_for(article, "劳动合同法第44条是什么")
    assert not asked_for(article, "劳动合同法第45条是什么")
    section = whole(article, "劳动合同法第44条是什么")
    assert section is not None
    assert section.of(text) == text.strip()
    assert whole(article, "第44条里期满以后的经济补偿金应当怎么计算") is None
    assert whole(passage("字" * 2000, "第四十四条"), "第44条") is None

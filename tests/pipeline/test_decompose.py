"""Sub-questions by rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.classify import Kind, classify
from headrace.pipeline.decompose import MOST, decompose
from headrace.pipeline.rewrite import keeps_together


@pytest.mark.parametrize(
    ("question", "pieces"),
    [
        (
            "土地承包经营权与土地经营权有什么区别？",
            ["土地承包经营权有什么区别？", "土地经营权有什么区别？"],
        ),
        (
            "Are Medici and Senet both board games?",
            ["Are Medici both board games?", "Are Senet both board games?"],
        ),
        (
            "Who is the oldest, Sid Haig or Vic Darchinyan?",
            ["Who is the oldest, Sid Haig?", "Who is the oldest, Vic Darchinyan?"],
        ),
        (
            "What is the fine and when must it be paid?",
            ["What is the fine", "What is the fine\nwhen must it be paid"],
        ),
        (
            "哪些合同无效？撤销权何时消灭？",
            ["哪些合同无效", "撤销权何时消灭"],
        ),
    ],
)
def test_pieces(question: str, pieces: list[str]) -> None:
    assert decompose(question, classify(question).kind) == pieces


@pytest.mark.parametrize(
    "question", ["What is CAPIF?", "狗要用牵引绳吗？", "Who founded Weirford?"]
)
def test_one_question_stays_one(question: str) -> None:
    assert decompose(question, classify(question).kind) == []


@given(
    st.lists(
        st.sampled_from(
            [
                "What is",
                "the fine of 150 crowns?",
                " and when",
                "第44条",
                "是什么？",
                "以及",
                "怎么",
                *("Alpha", "Beta", "both", "or", "38.401", "和", "区别", ";", "1.", "2.", "Which"),
            ]
        ),
        max_size=14,
    ),
    st.sampled_from(["comparison", "multi_part"]),
)
def test_the_pieces_together_lose_nothing(words: list[str], kind: Kind) -> None:
    question = " ".join(words)
    pieces = decompose(question, kind)
    assert len(pieces) <= MOST
    assert not pieces or keeps_together(question, pieces)

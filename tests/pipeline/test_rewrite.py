"""What is looked up for a follow-up question."""

from __future__ import annotations

import pytest

from headrace.pipeline.rewrite import standalone
from headrace.types import Message

HISTORY = (
    Message("user", "What is the callback receiver?"),
    Message("assistant", "A stub."),
)
BEFORE = HISTORY[0].content


@pytest.mark.parametrize(
    "question",
    [
        "Which ports does it use?",
        "And how is it built?",
        "What about TLS?",
        "Why?",
        "那端口呢？",
        "超过了怎么办？",
    ],
)
def test_a_question_that_points_back_is_looked_up_with_the_one_before(question: str) -> None:
    assert standalone(question, HISTORY) == f"{BEFORE}\n{question}"


@pytest.mark.parametrize(
    "question",
    [
        "Which ports does the producer stub listen on?",
        "试用期最长可以约定多久？",
        "What is CAPIF?",
        "第44条",
    ],
)
def test_a_question_that_stands_alone_is_left_alone(question: str) -> None:
    assert standalone(question, HISTORY) == question


def test_without_a_question_before_there_is_nothing_to_add() -> None:
    assert standalone("Why?", ()) == "Why?"
    assert standalone("Why?", (Message("assistant", "Hello."),)) == "Why?"

"""What is looked up for a follow-up question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.rewrite import cannot_help, in_its_words, keeps, standalone
from headrace.retrieval.lexicon import Definition, Lexicon
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


# What must not be lost ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("老板拖着不给工钱怎么办？", "用人单位拖欠劳动报酬的，劳动者如何主张权利？"),
        ("Can they fine me 150 crowns under Article 3?", "What fine of 150 crowns has Article 3?"),
        ("张三欠我三百元怎么办？", "张三拖欠300元的，债权人如何主张？"),
        ("What does O-RAN say about 38.401?", "Which requirements does O-RAN take from 38.401?"),
    ],
)
def test_other_words_for_the_same_question(question: str, other: str) -> None:
    assert keeps(question, other)


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("第四十四条怎么规定？", "法律怎么规定？"),
        ("Is a fine of 150 crowns allowed?", "Is a fine of 160 crowns allowed?"),
        ("Is a fine allowed?", "Is a fine of 150 crowns allowed?"),
        ("张三欠我钱怎么办？", "债务人欠款怎么办？"),
        ("Where was the founder of Weirford born?", "Where was the founder of the town born?"),
        ("What does 《民法典》 say about wills?", "What does the law say about wills?"),
        ("mw-scada-02 的端口是多少？", "服务的端口是多少？"),
    ],
)
def test_what_loses_or_invents_is_noticed(question: str, other: str) -> None:
    assert not keeps(question, other)


WORDS = st.sampled_from(
    [
        *("the fine", "is 150 crowns", "of Weirford", "under Article 3", "38.401", "mw-scada-02"),
        *("第四十四条", "《民法典》", "怎么", "规定", "张三", "欠款", "三百元", "“quoted words”"),
    ]
)


@given(st.lists(WORDS, min_size=1, max_size=12))
def test_every_text_keeps_itself_and_a_longer_one_with_the_same_words(words: list[str]) -> None:
    text = " ".join(words)
    assert keeps(text, text)
    assert keeps(text, f"please tell {text}")


@given(st.lists(WORDS, max_size=8), st.sampled_from(["987.654", "zx-77-q", "第九十九条", "4321"]))
def test_a_number_or_identifier_that_is_lost_or_invented_is_always_noticed(
    words: list[str], fact: str
) -> None:
    text = " ".join(words)
    assert not keeps(f"{text} {fact}", text)
    assert not keeps(text, f"{text} {fact}")


# The collection's words ---------------------------------------------------------------------------

LEXICON = Lexicon(
    1, {}, {"probation period": (Definition("probation period", "trial months of a new job", 7),)}
)


def found(question: str, chunks: frozenset[int] = frozenset({7})) -> list[str]:
    given = in_its_words(
        question, LEXICON, chunks.__contains__, lambda terms: dict.fromkeys(terms, 1.0)
    )
    return [definition.term for definition in given]


def test_a_question_in_other_words_is_given_the_collections_term() -> None:
    assert found("How many trial months has a new job?") == ["probation period"]
    assert found("Who feeds the dogs of Weirford?") == []
    assert found("How many trial months has the probation period of a new job?") == []


def test_what_the_caller_may_not_read_gives_no_term() -> None:
    assert found("How many trial months has a new job?", frozenset()) == []


def test_where_a_rewriting_cannot_help() -> None:
    assert "names" in cannot_help("identifier", "第44条", LEXICON)
    assert "term" in cannot_help("simple", "How long is the probation period?", LEXICON)
    assert cannot_help("simple", "How many trial months?", LEXICON) == ""

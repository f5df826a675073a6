"""What a sentence claims, taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline import claims


@pytest.mark.parametrize(
    ("text", "value"),
    [("二十", 20), ("十五", 15), ("一千五百", 1500), ("三万", 30_000), ("一亿二千万", 120_000_000)],
)
def test_chinese_numbers(text: str, value: int) -> None:
    assert claims.chinese_number(text) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("罚款二百元", "罚款200元"),
        ("within fifteen days", "within 15 days"),
        ("a fine of 1,500 crowns", "a fine of 1500 crowns"),
        ("第四十四条", "第44条"),
    ],
)
def test_the_same_fact_in_two_spellings(one: str, other: str) -> None:
    assert claims.facts(one) == claims.facts(other)
    assert claims.facts(one)


def test_facts_hold_identifiers_whole() -> None:
    assert "ts38.401" in claims.facts("see TS38.401 for this")
    assert claims.facts("10%") == {"10%"}


@pytest.mark.parametrize(
    "text", ["Dogs must not run free.", "不得饲养", "It isn't allowed", "禁止吸烟"]
)
def test_denials(text: str) -> None:
    assert claims.denies(text)


@pytest.mark.parametrize(
    "text", ["no more than 3 dogs", "不少于三天", "未成年人可以参加", "Dogs may run free."]
)
def test_no_denials(text: str) -> None:
    assert not claims.denies(text)


def test_terms_leave_function_words_out() -> None:
    assert claims.terms("what is the of and") == frozenset()
    assert claims.terms("the fees of markets") == claims.terms("market fee")


def test_markers_and_quotations() -> None:
    sentence = "It says “no dogs” here [2][13]."
    assert claims.markers(sentence) == [2, 13]
    assert claims.without_markers(sentence) == "It says “no dogs” here."
    assert claims.quoted(sentence) == ["no dogs"]
    assert claims.quoted("他说「不可以」。") == ["不可以"]


def test_coverage_is_a_share() -> None:
    assert claims.coverage(frozenset({"dog", "leash"}), frozenset({"dog", "leash", "x"})) == 1
    assert 0 < claims.coverage(frozenset({"dog", "leash"}), frozenset({"dog"})) < 1
    assert claims.coverage(frozenset(), frozenset({"dog"})) == 0


@given(st.text())
def test_any_text_can_be_taken_apart(text: str) -> None:
    claims.terms(text)
    claims.facts(text)
    claims.denies(text)
    claims.quoted(text)

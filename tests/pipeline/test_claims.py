"""What a sentence claims, taken apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline import claims


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
    claims.quoted(text)

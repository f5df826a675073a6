"""The analyzer: the same tokens for a document and for whoever looks for it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.retrieval.analyze import LONGEST, VERSION, numeral, references, tokens


@pytest.mark.parametrize(
    "written", ["第四十四条", "第44条", "第 44 条", "第４４条", "刑法44条", "Article 44", "art. 44"]
)
def test_an_article_is_one_token_however_it_is_written(written: str) -> None:
    assert "第44条" in tokens(written)


def test_neighbouring_articles_share_no_token() -> None:
    assert not set(tokens("第四十四条")) & set(tokens("第四十五条"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("四十四", 44),
        ("十", 10),
        ("一百零二", 102),
        ("一千二百六十", 1260),
        ("二〇二四", 2024),
        ("44", 44),
    ],
)
def test_numerals(text: str, value: int) -> None:
    assert numeral(text) == value


def test_articles_inserted_later_have_their_own_token_too() -> None:
    assert {"第2条", "第2条之1"} <= set(tokens("第二条之一"))


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("O-RAN.WG4.CUS.0-v10.00", {"o-ran.wg4.cus.0-v10.00", "wg4", "cus", "o-ran", "v10.00"}),
        ("TS 38.401", {"ts", "38.401"}),
        ("TS38.401", {"ts", "38.401"}),
        ("D123-4", {"d123-4", "d123"}),
        ("jo.doe@example.org", {"jo.doe@example.org", "org", "doe"}),
        ("/usr/lib/x.py", {"usr/lib/x.py", "usr", "lib", "x.py"}),
    ],
)
def test_identifiers_are_kept_whole_and_in_parts(identifier: str, expected: set[str]) -> None:
    assert expected <= set(tokens(identifier))


def test_english_words_meet_at_their_stem() -> None:
    assert tokens("Running services") == tokens("runs service")


def test_chinese_gives_bigrams_and_words() -> None:
    assert {"劳动", "动合", "合同"} <= set(tokens("劳动合同"))
    assert "税" in tokens("税怎么交")


def test_full_width_forms_are_plain_ones() -> None:
    assert tokens("ＡＢＣ１２３") == tokens("abc123")


def test_a_lone_surrogate_is_survived() -> None:
    assert "x" in tokens("x \ud800")


@given(st.text(st.characters()))
def test_never_raises_and_never_gives_white_space(text: str) -> None:
    for token in tokens(text):
        assert token
        assert not any(character.isspace() for character in token)
        assert len(token) <= 2 * LONGEST


@given(st.text("第一二十百44条款之. -aA税", max_size=60))
def test_what_a_document_says_is_found_by_the_same_query(text: str) -> None:
    assert tokens(text) == tokens(text.upper())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("第四十四条规定了什么？", {"第44条"}),
        ("What does Article 44 say?", {"第44条"}),
        ("TS 38.401 and O-RAN.WG4.CUS.0-v10.00", {"38.401", "o-ran.wg4.cus.0-v10.00"}),
        ("USB sticks on MW-SCADA-02", {"mw-scada-02"}),
        ("within 3 days of the 14th, at 6:00, for 7.5 yuan or 10%", set()),
        ("3天内，2024年，9月", set()),
    ],
)
def test_references_name_one_certain_thing(text: str, named: set[str]) -> None:
    assert references(text) == named
    assert named <= set(tokens(text))


def test_other_tokens_are_another_version() -> None:
    """If this fails, what is indexed has changed: raise `analyze.VERSION`, so that indexes made
    before are not searched with tokens they do not hold, and put both new values here."""
    text = "第四十四条 劳动合同 Article 7 O-RAN.WG4.CUS.0-v10.00, the keepers' 38.401 ＡＢ a_b 二十"
    made = repr((tokens(text), sorted(references(text)))).encode()
    assert (VERSION, hashlib.sha256(made).hexdigest()[:12]) == (2, "5e2582917109")

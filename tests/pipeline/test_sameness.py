"""Which questions may have the answer of another one."""

from __future__ import annotations

import pytest

from headrace.pipeline.sameness import same_question
from headrace.retrieval.analyze import tokens

SOURCES = frozenset(
    tokens(
        "Dogs must be kept on a leash before noon. The tenant and the landlord may end the lease. "
        "A may sue B. 用人单位可以辞退员工。出租人和承租人的权利、义务。闸门由厂长打开。"
        "第四十四条 加班"
    )
)


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("Must dogs be kept on a leash?", "Do dogs have to be kept on a leash, please?"),
        ("Can the tenant end the lease?", "Could you tell me: may the tenant end the lease"),
        ("Must dogs be kept on a leash outdoors?", "Must dogs be kept on a leash?"),
        ("请问员工能不能辞退用人单位？", "员工是否可以辞退用人单位"),
        ("第44条怎么规定加班？", "第四十四条如何规定加班的？"),
        ("闸门可以打开吗", "闸门能否打开"),
        ("员工会加班吗", "员工会不会加班"),
    ],
)
def test_the_same_in_other_words(asked: str, known: str) -> None:
    assert same_question(asked, known, SOURCES.intersection)
    assert same_question(known, asked, SOURCES.intersection)


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("第44条怎么规定加班？", "第45条怎么规定加班？"),
        ("What does 38.401 say?", "What does 38.402 say?"),
        ("Is a fine of 40 francs due?", "Is a fine of fifty francs due?"),
        ("May dogs be kept?", "May dogs not be kept?"),
        ("Must dogs be kept on a leash?", "May dogs be kept on a leash?"),
        ("Must dogs be kept before noon?", "Must dogs be kept after noon?"),
        ("Can the tenant end the lease?", "Can the landlord end the lease?"),
        ("Can A sue B?", "Can B sue A?"),
        ("When may the tenant end the lease?", "Why may the tenant end the lease?"),
        ("May my friend Alice end the lease?", "May my friend Bob end the lease?"),
        ("用人单位可以辞退员工吗", "员工可以辞退用人单位吗"),
        ("出租人有哪些权利？", "承租人有哪些权利？"),
        ("出租人有哪些权利？", "出租人有哪些义务？"),
        ("闸门可以打开吗", "闸门不可以打开吗"),
        ("有钥匙的人会不会打开闸门", "没有钥匙的人会打开闸门吗"),
        ("没有钥匙的人不会打开闸门吗", "有钥匙的人不会打开闸门吗"),
        ("甲方可以辞退员工吗", "乙方可以辞退员工吗"),
        ("员工可以加班吗", "Can the staff work overtime?"),
        ("", "Dogs?"),
    ],
)
def test_what_differs_in_a_word_that_matters(asked: str, known: str) -> None:
    assert not same_question(asked, known, SOURCES.intersection)
    assert not same_question(known, asked, SOURCES.intersection)


def test_half_characters_and_long_texts_do_no_harm() -> None:
    assert not same_question("\ud800 dogs", "noon", SOURCES.intersection)
    assert same_question("x" * 20_000, "x" * 20_000 + " please", SOURCES.intersection)

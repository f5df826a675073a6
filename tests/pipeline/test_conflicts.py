"""Contradictions: found where the same is said with another number or the other way round, and
nowhere else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hits import hit

from headrace.pipeline.conflicts import amounts, clashes
from headrace.pipeline.evidence import passages
from headrace.pipeline.facts.kinds import Number
from headrace.pipeline.facts.reading import read


def between(question: str, one: str, other: str) -> list[tuple[str, str]]:
    sources = passages([hit(one, 1), hit(other, 2)])
    return [clash.values for clash in clashes(question, sources)]


@pytest.mark.parametrize(
    ("question", "one", "other", "values"),
    [
        (
            "What is the fine for a dog without a leash?",
            "A dog without a leash costs a fine of 150 crowns.",
            "For a dog without a leash the fine costs 200 crowns.",
            ("150 crowns", "200 crowns"),
        ),
        (
            "夜间噪声不得超过多少分贝？",
            "居住区的夜间噪声不得超过45分贝。",
            "居住区的夜间噪声不得超过五十分贝。",
            ("45分贝", "五十分贝"),
        ),
        (
            "公园里可以放飞无人机吗？",
            "市属公园内允许放飞无人机。",
            "市属公园内不允许放飞无人机。",
            ("肯定", "否定"),
        ),
        (
            "承租人可以转租吗？",
            "承租人可以转租租赁的房屋。",
            "承租人不得转租租赁的房屋。",
            ("肯定", "否定"),
        ),
        (
            "出租人多久返还押金？",
            "出租人应当在半年内返还押金。",
            "出租人应当在三个月内返还押金。",
            ("半年", "三个月"),
        ),
        (
            "When does the weekly market open?",
            "The weekly market opens at 7 a.m. on the square.",
            "The weekly market opens at 08:00 on the square.",
            ("7 a.m.", "08:00"),
        ),
        (
            "How many hens may be kept in a yard?",
            "Six hens may be kept in the yard of a dwelling.",
            "Four hens may be kept in the yard of a dwelling.",
            ("Six hens", "Four hens"),
        ),
    ],
)
def test_contradictions(question: str, one: str, other: str, values: tuple[str, str]) -> None:
    assert between(question, one, other) == [values]


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        pytest.param(
            "夜间噪声不得超过多少分贝？",
            "居住区的夜间噪声不得超过45分贝。",
            "居住区的夜间噪声不得超过四十五分贝。",
            id="the same number, written otherwise",
        ),
        pytest.param(
            "出租人多久返还押金？",
            "出租人应当在半年内返还押金。",
            "出租人应当在六个月内返还押金。",
            id="the same time in another unit",
        ),
        pytest.param(
            "When does the weekly market open?",
            "The weekly market opens at 7 p.m. on the square.",
            "The weekly market opens at 19:00 on the square.",
            id="the same hour, written otherwise",
        ),
        pytest.param(
            "居民停车证多少钱？",
            "居民停车证第一张每年收费240元。",
            "居民停车证第二张每年收费480元。",
            id="the first and the second of a kind",
        ),
        pytest.param(
            "夜间噪声不得超过多少分贝？",
            "居住区的夜间噪声不得超过45分贝。",
            "工业区的白天噪声不得超过70分贝。",
            id="another matter",
        ),
        pytest.param(
            "居民停车证多少钱？",
            "居民停车证第一张每年240元。",
            "Night noise in residential areas may not exceed 45 decibels.",
            id="another language",
        ),
        pytest.param(
            "How long is annual leave?",
            "A dog without a leash costs a fine of 150 crowns.",
            "For a dog without a leash the fine costs 200 crowns.",
            id="not what was asked",
        ),
        pytest.param(
            "停车证的规定",
            "依照第十九条规定申请居民停车证的住户，应当缴纳费用。",
            "依照第二十条规定申请居民停车证的住户，应当缴纳费用。",
            id="only the articles referred to differ",
        ),
        pytest.param(
            "车辆停放多久收费？",
            "车辆停放超过15分钟的收费8元。",
            "车辆停放超过30分钟的收费16元。",
            id="two steps of one tariff",
        ),
    ],
)
def test_no_contradiction(question: str, one: str, other: str) -> None:
    assert between(question, one, other) == []


def test_amounts_are_told_apart_by_what_they_are_of() -> None:
    assert amounts(read("十四日内，罚款150元或者1,500元")) == {
        ("day", ""): {Number(Fraction(14), "day"): "十四日"},
        ("yuan", ""): {
            Number(Fraction(150), "yuan"): "150元",
            Number(Fraction(1500), "yuan"): "1,500元",
        },
    }
    assert amounts(read("within two weeks")).keys() == amounts(read("within 14 days")).keys()
    assert amounts(read("第十四条第3款")) == {}


def test_both_ranges_are_named_in_their_documents() -> None:
    text = "Markets. A dog without a leash costs a fine of 200 crowns. " + "More about it. " * 20
    sources = passages([hit("A dog without a leash costs a fine of 150 crowns.", 1), hit(text, 2)])
    (clash,) = clashes("What is the fine for a dog without a leash?", sources)
    assert (clash.one.hit, clash.other.hit) == (0, 1)
    assert clash.other.span.of(text).endswith("200 crowns.")

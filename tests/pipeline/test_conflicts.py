"""Contradictions: found where the same is said with another number or the other way round, and
nowhere else."""

from __future__ import annotations

import pytest
from hits import hit

from headrace.pipeline.conflicts import amounts_of, clashes
from headrace.pipeline.evidence import passages


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
            ("150 crown", "200 crown"),
        ),
        (
            "夜间噪声不得超过多少分贝？",
            "居住区的夜间噪声不得超过45分贝。",
            "居住区的夜间噪声不得超过五十分贝。",
            ("45分贝", "50分贝"),
        ),
        (
            "公园里可以放飞无人机吗？",
            "市属公园内允许放飞无人机。",
            "市属公园内不允许放飞无人机。",
            ("肯定", "否定"),
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


def test_amounts_have_units() -> None:
    assert amounts_of("十四日内，罚款150元或者1,500元") == {
        "日": frozenset({"14"}),
        "元": frozenset({"150", "1500"}),
    }
    assert amounts_of("within 14 days") == amounts_of("14 day")
    assert amounts_of("第十四条第3款") == {}


def test_both_ranges_are_named_in_their_documents() -> None:
    text = "Markets. A dog without a leash costs a fine of 200 crowns. " + "More about it. " * 20
    sources = passages([hit("A dog without a leash costs a fine of 150 crowns.", 1), hit(text, 2)])
    (clash,) = clashes("What is the fine for a dog without a leash?", sources)
    assert (clash.one.hit, clash.other.hit) == (0, 1)
    assert clash.other.span.of(text).endswith("200 crowns.")

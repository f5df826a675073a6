"""Texts taken apart into tokens and typed facts."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.facts import numerals
from headrace.pipeline.facts.kinds import (
    Date,
    Fact,
    Identifier,
    Name,
    Number,
    Provision,
    Time,
)
from headrace.pipeline.facts.reading import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("二十", 20),
        ("一千五百", 1500),
        ("三万", 30_000),
        ("一亿二千万", 120_000_000),
        ("1,500", 1500),
        ("1.5万", 15_000),
        ("3 million", 3_000_000),
        ("thirty-five", 35),
        ("two hundred and ten", 210),
        ("三点五", Fraction(7, 2)),
    ],
)
def test_numerals(text: str, value: int) -> None:
    assert numerals.value(text) == value


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("罚款三百元", Number(Fraction(300), "yuan")),
        ("罚款1.5万元", Number(Fraction(15_000), "yuan")),
        ("支付百分之三百的报酬", Number(Fraction(300), "percent")),
        ("支付３００％的报酬", Number(Fraction(300), "percent")),
        ("不少于三分之一", Number(Fraction(100, 3), "percent")),
        ("半年内", Number(Fraction(6), "month")),
        ("自十日内", Number(Fraction(10), "day")),
        ("within thirty days", Number(Fraction(30), "day")),
        ("five working days", Number(Fraction(5), "workday")),
        ("十五个工作日内", Number(Fraction(15), "workday")),
        ("6 hens", Number(Fraction(6), "", "hen")),
        ("第四十四条", Provision("条", 44)),
        ("应当支付本法第60条规定的费用", Provision("条", 60)),
        ("不存在民法典第一百四十四条规定的情形", Provision("条", 144, 0, "民法典")),
        ("《中华人民共和国劳动法》第44条", Provision("条", 44, 0, "劳动法")),
        ("根据民法典第五十四条的规定", Provision("条", 54, 0, "民法典")),
        ("本法第二条之一", Provision("条", 2, 1)),
        ("Article 12 of the Labour Act", Provision("条", 12, 0, "Labour Act")),
        ("二〇二四年五月一日", Date(2024, 5, 1)),
        ("on 1 May 2024", Date(2024, 5, 1)),
        ("on May 1, 2024", Date(2024, 5, 1)),
        ("2024-05-01", Date(2024, 5, 1)),
        ("夜间二十二时", Time(1320)),
        ("until 10 p.m.", Time(1320)),
        ("from 22:00", Time(1320)),
        ("see TS38.401 for this", Identifier("ts38.401")),
        ("见《工伤保险条例》", Name("工伤保险条例")),
        ("He met Ada Lovelace", Name("Lovelace")),
    ],
)
def test_facts_by_value(text: str, fact: Fact) -> None:
    assert fact in read(text).written


@pytest.mark.parametrize(
    "text",
    [
        "十分重要",
        "万一失败",
        "一般规定",
        "一个人",
        "one of them",
        "百姓",
        "（三）违反规定的",
        "3. 其他",
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert not [fact for fact in read(text).written if isinstance(fact, Number)]


def test_the_first_of_a_range_has_the_unit_of_the_second() -> None:
    found = [fact for fact in read("处三至七年有期徒刑").written if isinstance(fact, Number)]
    assert found == [Number(Fraction(36), "month"), Number(Fraction(84), "month")]


@pytest.mark.parametrize(
    "text",
    [
        "不得饲养",
        "合同无效",
        "没有约定",
        "must not run",
        "It isn't allowed",
        "禁止吸烟",
        "未经批准",
    ],
)
def test_negations(text: str) -> None:
    assert any(token.kind == "not" for token in read(text).tokens)


@pytest.mark.parametrize(
    "text",
    ["不少于三天", "未成年人参加", "不动产登记", "no more than 3 dogs", "是否参加", "合同有效"],
)
def test_no_negations(text: str) -> None:
    assert not any(token.kind == "not" for token in read(text).tokens)


def test_full_width_forms_are_the_same() -> None:
    assert (
        read("处５０元罚款，１０日内缴纳").written.keys()
        == read("处50元罚款，10日内缴纳").written.keys()
    )


@given(st.text())
def test_any_text_can_be_taken_apart(text: str) -> None:
    read(text)

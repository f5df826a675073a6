"""Where a sentence differs from its source, and where it only says it in other words."""

from __future__ import annotations

import pytest

from headrace.pipeline.facts.aligning import align, clauses, nearest
from headrace.pipeline.facts.conditions import dropped
from headrace.pipeline.facts.contrast import contrast
from headrace.pipeline.facts.kinds import Provision
from headrace.pipeline.facts.missing import Source, missing
from headrace.pipeline.facts.reading import read

LEASE = (
    "出租人应当在三十日内向承租人返还押金，但是承租人损坏租赁物的除外。"
    "未经出租人同意，承租人不得转租。"
)
NOTHING = read("")
PAY = "The employer pays the employee within 30 days, unless the employee has agreed otherwise."


def lacks(sentence: str, source: str, over: str = "") -> list[str]:
    given = Source(read(source), read(over), source)
    return list(missing(read(sentence), given, frozenset[Provision]()))


@pytest.mark.parametrize(
    ("sentence", "source", "word"),
    [
        ("出租人应当在三十日内向出租人返还押金。", LEASE, "出租人"),
        ("承租人应当在三十日内向出租人返还押金。", LEASE, "承租人"),
        ("出租人可以在三十日内向承租人返还押金。", LEASE, "可以"),
        ("出租人不应当在三十日内向承租人返还押金。", LEASE, "不"),
        ("未经出租人同意，承租人可以转租。", LEASE, "不得"),
        ("The employee pays the employer within 30 days.", PAY, "employe"),
        ("The employer does not pay the employee within 30 days.", PAY, "not"),
        ("处五年以下有期徒刑。", "处五年以上有期徒刑。", "以下"),
        ("双方协商一致的，可以向法院起诉。", "双方协商不一致的，可以向法院起诉。", "一致"),
        ("合同订立时已与对方协商。", "合同订立时未与对方协商。", "未"),
        (
            "保证人应当承担责任。押金不退还给承租人。",
            "押金退还给承租人。保证人应当承担责任。",
            "不",
        ),
        ("单位不得向职工收取押金。", "个人不得向职工收取押金。", "单位"),
        ("Mill Bridge lies north of Weir Gate.", "Weir Gate lies north of Mill Bridge.", "place"),
    ],
)
def test_what_may_not_differ(sentence: str, source: str, word: str) -> None:
    assert word in contrast(read(sentence), read(source), NOTHING)


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("出租人应该在30日内向承租人返还押金。", LEASE),
        ("承租人未经出租人同意不能转租。", LEASE),
        ("The employer shall pay the employee within thirty days.", PAY),
        ("押金由出租人返还给承租人。", LEASE),
        ("法律规定，不动产登记由登记机构办理。", "不动产登记，由不动产所在地的登记机构办理。"),
        ("承包方转让承包经营权须经发包方同意。", "经发包方同意，承包方可以转让承包经营权。"),
        ("转让债权须经保证人同意。", "未经保证人同意，债权不得转让。"),
        ("需通知保证人，该转让才对保证人有效。", "未通知保证人的，该转让对保证人不发生效力。"),
        (
            "管理人能够证明尽到管理职责的，不承担侵权责任。",
            "管理人不能证明尽到管理职责的，应当承担侵权责任。",
        ),
        (
            "旅游者不听从警示，造成损害的，旅游经营者不承担责任。",
            "旅游者不听从警示，造成损害，请求旅游经营者承担责任的，人民法院不予支持。",
        ),
        (
            "受让方擅自改变土地的农业用途的，承包方可以单方解除流转合同。",
            "承包方不得单方解除流转合同，但受让方有下列情形之一的除外："
            "（一）擅自改变土地的农业用途；",
        ),
        ("不同于买卖合同，承揽合同是交付工作成果的合同。", "承揽合同是交付工作成果的合同。"),
        ("双方协商一致，可以变更合同。", "当事人协商一致，可以变更合同。"),
        ("拟定格式条款时没有与对方协商。", "拟定格式条款时未与对方协商。"),
        ("押金不能超过两个月的租金。", "押金不得超过两个月的租金。"),
        (
            "非婚生子女与婚生子女享有同等的权利。",
            "非婚生子女享有与婚生子女同等的权利。",
        ),
    ],
)
def test_the_same_in_other_words(sentence: str, source: str) -> None:
    assert contrast(read(sentence), read(source), NOTHING) == ""


@pytest.mark.parametrize(
    ("sentence", "source", "reason"),
    [
        ("within 30 days", "within 30 months", "30 days: the source says 30 months"),
        ("在30日内", "在三十个月内", "30日: the source says 三十个月"),
        ("罚款五百元", "罚款三百元", "五百元: the source says 三百元"),
        ("以下两个条件", "以下三个条件", "两个: the source says 三个"),
        ("第二顺序", "第一顺序", "第二: the source says 第一"),
        ("自2021年1月1日起", "自2020年1月1日起", "2021年1月1日: the source says 2020年1月1日"),
        ("6 hens", "6 cocks", ""),
        ("see TS38.402", "see TS38.401", "TS38.402 is not in the source"),
        ("He met Ada Lovelace", "He met a friend", "Ada is not in the source"),
    ],
)
def test_a_fact_that_is_missing_is_named(sentence: str, source: str, reason: str) -> None:
    assert next(iter(lacks(sentence, source)), "") == reason


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("within 15 days", "within fifteen days"),
        ("在六个月内", "在半年内"),
        ("一年", "12个月"),
        ("in 2024", "自二〇二四年五月一日起"),
        ("on 1 May 2024", "on May 1, 2024"),
        ("at 7 p.m.", "at 19:00"),
        ("处1.5万元罚款", "处一万五千元罚款"),
        ("处1-5万元罚款", "处一万元以上五万元以下罚款"),
        ("处500至1万元罚款", "处五百元以上一万元以下罚款"),
        ("依照第1款第2项", "依照第一款第（二）项"),
        ("①无民事行为能力人", "（一）无民事行为能力人"),
        ("第二，关于损害", "关于损害"),
        ("应当符合以下两个条件", "应当符合下列条件"),
    ],
)
def test_the_same_fact_in_two_notations(sentence: str, source: str) -> None:
    assert lacks(sentence, source) == []


def test_a_provision_goes_with_its_law() -> None:
    assert lacks("劳动法第44条", "工资", over="劳动法 › 第四十四条") == []
    assert lacks("第44条", "工资", over="劳动法 › 第四十四条") == []
    assert lacks("劳动合同法第44条", "工资", over="劳动法 › 第四十四条")
    assert lacks("劳动法第45条", "工资", over="劳动法 › 第四十四条")


def test_titles_are_compared_without_the_brackets_within() -> None:
    over = "最高人民法院关于审理民间借贷案件适用《民法典》若干问题的规定 › 第一条"
    full = "《最高人民法院关于审理民间借贷案件适用<中华人民共和国民法典>若干问题的规定》第一条"
    assert lacks(full, "利息", over) == []
    assert lacks("《民间借贷司法解释》第一条", "利息", over) == []
    assert lacks("《担保制度司法解释》第一条", "利息", over)


@pytest.mark.parametrize(
    ("sentence", "source", "word"),
    [
        ("出租人应当在三十日内向承租人返还押金。", LEASE, "除外"),
        ("The employer pays the employee within 30 days.", PAY, "unless"),
        ("应当向登记机构申请登记。", "设立居住权的，应当向登记机构申请登记。", "设立居住权"),
    ],
)
def test_a_condition_that_was_dropped_is_named(sentence: str, source: str, word: str) -> None:
    assert word in dropped(read(sentence), source, read("怎么办？"))


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        pytest.param(
            "借款没有约定利息的，法院不支持支付利息。",
            "借款没有约定利息，法院不支持支付利息。除自然人之间借款外，没有约定利息的，应当补充。",
            id="another sentence says so without it",
        ),
        pytest.param(
            "一般情况下，承包方不得解除流转合同。",
            "承包方不得解除流转合同，但是受让方弃耕抛荒的除外。",
            id="said as a rule",
        ),
        pytest.param(
            "承包方不得解除流转合同。",
            "承包方不得解除流转合同，但是受让方有下列情形之一的除外：（一）弃耕抛荒。",
            id="a list follows",
        ),
        pytest.param(
            "出质人转让股权所得的价款，应当提前清偿债务。",
            "股权出质后，出质人不得转让，但是经质权人同意的除外。"
            "出质人转让股权所得的价款，应当提前清偿债务。",
            id="the exception of another clause",
        ),
    ],
)
def test_what_is_no_condition_of_the_sentence(sentence: str, source: str) -> None:
    assert dropped(read(sentence), source, read("怎么办？")) == ""


def test_the_provision_over_a_source_has_no_rival_in_it() -> None:
    source = "因本法第二十六条规定，劳动合同无效的，可以解除。"
    said = read("根据《劳动合同法》第39条规定，劳动合同无效的，可以解除。")
    assert contrast(said, read(source), read("劳动合同法 › 第三十九条")) == ""
    assert "第39条" in contrast(said, read(source), read("劳动合同法 › 第四十条"))


def test_a_sentence_of_one_article_does_not_cite_its_neighbour() -> None:
    source = Source(
        read("On Mill Day the limits of Article 7 do not apply."), read("Article 13"), ""
    )
    near = frozenset({Provision("条", 14)})
    wrong = read("Under Article 14, on Mill Day the limits of Article 7 do not apply.")
    both = read("Under Article 13 and Article 14, on Mill Day the limits do not apply.")
    assert "Article 14" in next(missing(wrong, source, near))
    assert list(missing(both, source, near)) == []


def test_only_the_citation_of_the_source_itself_has_no_rival() -> None:
    source = read("On Mill Day the limits of Article 7 and Article 10 do not apply.")
    said = "Under Article 13, on Mill Day the limits of Article 7 and Article {} do not apply."
    assert contrast(read(said.format(10)), source, read("Article 13")) == ""
    assert "Article 13" in contrast(read(said.format(13)), source, read("Article 13"))
    alone = read("On Mill Day the limits of Article 7 and Article 13 do not apply.")
    assert "Article 13" in contrast(alone, source, read("Article 13"))


def test_a_condition_that_the_question_has_need_not_be_repeated() -> None:
    said = read("应当向登记机构申请登记。")
    assert not dropped(said, "设立居住权的，应当向登记机构申请登记。", read("怎样设立居住权？"))


def test_an_alignment_pairs_equal_tokens_in_order() -> None:
    claim, source = (
        clauses(read(text).tokens)[0] for text in ("a cat saw red fish", "one cat and fish swam")
    )
    found = align(claim, source)
    assert [(claim[i].key, source[j].key) for i, j in found.pairs] == [
        ("cat", "cat"),
        ("fish", "fish"),
    ]
    assert nearest(claim, [source]) == found


def test_long_texts_are_compared_in_time_that_grows_evenly() -> None:
    text = "甲方应当在三十日内向乙方支付五百元，乙方不得拒绝。" * 200
    assert contrast(read(text), read(text), NOTHING) == ""

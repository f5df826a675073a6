"""Kinds of questions, in both languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.classify import EFFORTS, Kind, classify


@pytest.mark.parametrize(
    ("kind", "question"),
    [
        ("chat", "Hello!"),
        ("chat", "good morning, thank you very much"),
        ("chat", "你好"),
        ("chat", "您好，在吗？"),
        ("chat", "谢谢你！"),
        ("identifier", "第四十四条"),
        ("identifier", "What does Article 3 say?"),
        ("identifier", "《劳动合同法》第十九条规定了什么？"),
        ("identifier", "O-RAN.WG4.CUS.0-v10.00"),
        ("definition", "What is the callback receiver?"),
        ("definition", "What does MTU mean?"),
        ("definition", "什么是要约？"),
        ("definition", "要约是什么意思？"),
        ("comparison", "土地承包经营权与土地经营权有什么区别？"),
        ("comparison", "Which plant is larger, the Pterocarya or the Cotula?"),
        ("comparison", "Are Medici and Senet both board games?"),
        ("comparison", "What is the difference between the E2 and the A1 interface?"),
        ("multi_part", "What is the fine and when must it be paid?"),
        ("multi_part", "这个条款有效吗？保险公司如何理赔？"),
        ("multi_part", "试用期最长是多久，并且工资怎么算？"),
        ("multi_part", "1. What is E2? 2. What is A1?"),
        ("multi_hop", "In which city was the founder of Two Dollar Radio born?"),
        ("multi_hop", "Toad Hall is in a university located in what Australian city?"),
        ("multi_hop", "违反《道路交通安全法》规定的，由哪个机关处罚？"),
        ("simple", "How high is the fine for dogs without a leash?"),
        ("simple", "农户成员去世，村集体能否收回承包地？"),
        ("simple", "Hi, how long is the probation period?"),
        ("simple", "你好，试用期最长可以约定多久？"),
    ],
)
def test_kinds(kind: Kind, question: str) -> None:
    found = classify(question)
    assert found.kind == kind, found.why


@given(st.text(min_size=1, max_size=300))
def test_every_text_has_a_kind_with_an_effort(text: str) -> None:
    found = classify(text)
    assert found.kind in EFFORTS
    assert found.why


def test_a_long_text_is_classified_in_time() -> None:
    for piece in ("a and b of the ", "的规定的", "What is ", "A ", "和什么、", "1. "):
        assert classify(piece * (20_000 // len(piece))).kind in EFFORTS

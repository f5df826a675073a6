"""What the sources support, and what they do not."""

from __future__ import annotations

import pytest

from headrace.pipeline.evidence import passages
from headrace.pipeline.verify import verify
from headrace.types import Hit, Span

LEASH = (
    "Dogs shall be kept on a leash of at most two metres in public places. "
    "Whoever breaks this rule pays a fine of 150 crowns. "
    "Guide dogs are exempt from the fine while they work. "
    "The keeper shall carry bags and shall remove what the dog leaves behind at once, in parks "
    "and in streets."
)
NOISE = (
    "第三十条 夜间二十二时至次日六时，不得在居民区进行产生噪声的施工作业。违反的，处二百元罚款。"
)


def hit(number: int, text: str, *path: str) -> Hit:
    return Hit(
        chunk_id=number,
        document_id=f"d{number}",
        source=f"/d{number}.md",
        title="Code",
        path=path,
        span=Span(100, 100 + len(text)),
        text=text,
        score=1.0,
        scores={},
    )


QUESTION = "Must dogs be kept on a leash?"
HENS = "Article 69. No more than 6 hens, and no cock, may be kept in the yard of a dwelling."
SOURCES = passages(
    [
        hit(1, LEASH, "Code", "Article 12"),
        hit(2, NOISE, "市政条例", "第三十条"),
        hit(3, HENS, "Code", "Article 69"),
    ]
)


@pytest.mark.parametrize(
    "sentence",
    [
        "Dogs must be kept on a leash in public places [1].",
        "Whoever breaks this rule pays a fine of 150 crowns.",
        "The code says “Guide dogs are exempt from the fine while they work” [1].",
        "夜间22时至次日6时不得在居民区进行施工作业[2]。",
        "Under Article 12, dogs shall be kept on a leash in public places.",
        "No more than 6 hens may be kept in the yard of a dwelling [3].",
        "Yes, dogs must be kept on a leash.",
    ],
)
def test_supported(sentence: str) -> None:
    verdict = verify(sentence, SOURCES, QUESTION)
    assert verdict.reason == ""
    assert verdict.evidence


def test_the_span_is_the_sentence_that_says_it() -> None:
    (evidence,) = verify(
        "The fine is 150 crowns for whoever breaks this rule.", SOURCES, QUESTION
    ).evidence
    assert evidence.hit == 0
    start = LEASH.index("Whoever")
    assert evidence.span == Span(100 + start, 100 + LEASH.index(" Guide"))


def test_a_wrong_citation_is_put_right() -> None:
    (evidence,) = verify(
        "Dogs shall be kept on a leash in public places [2].", SOURCES, QUESTION
    ).evidence
    assert evidence.hit == 0


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("Whoever breaks this rule pays a fine of 250 crowns [1].", "250"),
        ("The code says “dogs may run free in parks” [1].", "quotation"),
        ("Cats must be registered with the town hall every spring [1].", "no passage"),
        ("Guide dogs are not exempt from the fine while they work [1].", "does not deny"),
        ("夜间22时至次日6时可以在居民区进行施工作业[2]。", "the source says 不得"),
        ("The answer is: the keeper [1].", "no passage"),
        ("The answer is: a leash [1].", "nothing that the question does not"),
        ("Anyone who works is exempt from the fine like guide dogs [1].", "otherwise"),
        ("Dogs may be kept off the leash in the mill park [1].", "may: the source says shall"),
        ("It is 150.", "no passage"),
        ("Under Article 13, dogs shall be kept on a leash in public places.", "13"),
    ],
)
def test_unsupported(sentence: str, reason: str) -> None:
    verdict = verify(sentence, SOURCES, QUESTION)
    assert not verdict.evidence
    assert reason in verdict.reason


def test_a_pronoun_stands_for_what_was_asked_about() -> None:
    sentence = "It shall carry bags and remove what the dog leaves behind at once in parks."
    assert verify(sentence, SOURCES, "What shall the keeper of a dog carry in parks?").evidence
    assert not verify(sentence, SOURCES, "How loud is a lawnmower?").evidence


def test_a_short_sentence_that_has_its_own_subject_stands_alone() -> None:
    sources = passages([hit(1, "定作人应当验收该工作成果。承揽人交付工作成果。", "民法典")])
    assert verify("定作人必须验收该工作成果。", sources, "没有约定的，报酬怎么付？").evidence


def test_what_a_sentence_cites_is_not_counted_among_its_words() -> None:
    text = "对姓名等的许可使用，参照适用肖像许可使用的有关规定。对声音的保护另行规定。"
    sources = passages([hit(1, text, "民法典", "第一千零二十三条")])
    said = "根据我国《中华人民共和国民法典》的规定，对姓名的许可使用，参照适用肖像许可的规定。"
    assert verify(said, sources, QUESTION).evidence
    assert "婚姻法" in verify(said.replace("民法典", "婚姻法"), sources, QUESTION).reason


def test_property_of_all_and_prohibitions_claim_nothing_of_everybody() -> None:
    sources = passages(
        [
            hit(
                1,
                "征收集体所有的土地，应当支付补偿费。禁止在公路上摆摊设点、堆放物品、倾倒垃圾、设置障碍。",
                "法",
            )
        ]
    )
    for said in (
        "征收集体所有的土地应支付补偿费用。",
        "任何人不得在公路上摆摊设点、堆放物品、倾倒垃圾、设置障碍。",
    ):
        assert verify(said, sources, QUESTION).evidence, said
    assert not verify("征收任何土地，应当支付补偿费。", sources, QUESTION).evidence


@pytest.mark.parametrize("sentence", ["您好，", "Hello!", "* * *"])
def test_a_greeting_needs_no_support(sentence: str) -> None:
    assert verify(sentence, SOURCES, QUESTION).reason == ""


@pytest.mark.parametrize(
    "sentence", ["And so it is.", "Yes.", "是的。", "The answer is in the passages."]
)
def test_a_bare_remark_is_no_proof(sentence: str) -> None:
    assert verify(sentence, SOURCES, QUESTION).reason


def test_a_sentence_of_the_source_is_its_own_proof() -> None:
    sources = passages([hit(1, "It is bound to the wheel. It turns at noon.", "Mill")])
    verdict = verify("It turns at noon.", sources, "What is the weather?")
    assert verdict.reason == ""
    (evidence,) = verdict.evidence
    assert evidence.span == Span(126, 143)


def test_what_the_sentence_is_about_decides() -> None:
    """A passage that says less of it, but has the number, does not prove it."""
    close = "Whoever moors at the mill bridge at night pays a fine of 90 crowns to the warden."
    other = "A fine of 60 crowns is paid to the warden. Whoever moors at night needs a lamp."
    sources = passages([hit(1, close, "Code"), hit(2, other, "Code")])
    said = "Whoever moors at the mill bridge at night pays a fine of 60 crowns to the warden."
    assert verify(said, sources, QUESTION).reason == "60 crowns: the source says 90 crowns"


def test_a_short_answer_is_read_with_the_question() -> None:
    question = "How high is the fine for whoever breaks the rule?"
    assert verify("It is 150 crowns.", SOURCES, question).evidence
    assert not verify("It is 150 crowns.", SOURCES, "How many guide dogs are at work?").evidence


def test_marks_of_omission_split_a_quotation() -> None:
    whole = "The code says “Dogs shall be kept on a leash ... pays a fine of 150 crowns”."
    verdict = verify(whole, SOURCES, QUESTION)
    assert verdict.reason == ""
    said = [e.span.start for e in verdict.evidence[:2]]
    assert said == [100, 100 + LEASH.index("pays a fine")]
    turned = "The code says “pays a fine of 150 crowns ... Dogs shall be kept on a leash”."
    assert "not in the sources" in verify(turned, SOURCES, QUESTION).reason


def test_a_quotation_may_be_broken_into_lines_where_the_source_is_not() -> None:
    sources = passages([hit(1, "Dogs shall be kept\n   on a leash in parks.", "Code")])
    verdict = verify("The code says “kept on a leash in parks”.", sources, QUESTION)
    assert verdict.reason == ""
    span = verdict.evidence[0].span
    assert sources[0].hit.text[span.start - 100 : span.end - 100] == "kept\n   on a leash in parks"
    refused = verify("The code says “kept on aleash in parks”.", sources, QUESTION)
    assert "not in the sources" in refused.reason

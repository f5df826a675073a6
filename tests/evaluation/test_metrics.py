"""Metrics against values computed by hand."""

from __future__ import annotations

import math

import pytest
from tests.evaluation.evaluating import question, suite

from headrace.evaluation.choosing import choose, with_choices
from headrace.evaluation.format import Gold, Question
from headrace.evaluation.journal import Record
from headrace.evaluation.metrics import means, measure, retrieval
from headrace.evaluation.report import times
from headrace.evaluation.texts import best_f1, exact, f1, tokens


def test_retrieval_by_hand() -> None:
    """`a` has both golds at ranks 2 and 7 of 20, `b` one of two at rank 1, `c` nothing, and the
    list of `d` is empty."""
    found = retrieval({"a": ((2, 7), 20), "b": ((1, 0), 20), "c": ((0,), 20), "d": ((0,), 0)}, 20)
    assert set(found) == {"R@1", "R@5", "R@10", "nDCG@10", "RR@10"}
    assert found["R@1"] == {"a": 0.0, "b": 0.5, "c": 0.0, "d": 0.0}
    assert found["R@5"] == {"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0}
    assert found["R@10"] == {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.0}
    assert found["RR@10"] == {"a": 0.5, "b": 1.0, "c": 0.0, "d": 0.0}
    ideal = 1 + 1 / math.log2(3)
    assert found["nDCG@10"]["a"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(8)) / ideal)
    assert found["nDCG@10"]["b"] == pytest.approx(1 / ideal)


def test_a_rank_beyond_the_cutoff_counts_for_the_deeper_ones_only() -> None:
    found = retrieval({"a": ((11,), 150), "b": ((101,), 150)}, 150)
    assert (found["R@10"]["a"], found["RR@10"]["a"], found["R@50"]["a"]) == (0.0, 0.0, 1.0)
    assert found["R@100"]["b"] == 0.0


def test_short_lists_have_no_deep_cutoffs() -> None:
    assert [name for name in retrieval({"a": ((1,), 5)}, 5) if name[0] == "R"] == [
        "R@1",
        "R@5",
        "RR@10",
    ]


def test_several_needs_in_one_hit_take_a_place_each() -> None:
    found = retrieval({"a": ((1, 1), 10)}, 10)
    assert (found["R@1"]["a"], found["R@5"]["a"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("The annual leave is 24 days. [1]", "annual leave is 24 days", 1.0),
        ("Leave is 24 days", "24 working days", 2 * 2 / (4 + 3)),
        ("年假为24天。[1]", "年假是24天", 2 * 4 / (5 + 5)),
        ("The The cat cat", "cat", 2 * 1 / (2 + 1)),
        ("", "24", 0.0),
        ("。", "！", 1.0),
    ],
)
def test_f1_by_hand(answer: str, gold: str, value: float) -> None:
    assert f1(answer, gold) == pytest.approx(value)


def test_tokens_are_characters_of_chinese_and_words_of_the_rest() -> None:
    assert tokens("第44条 O-RAN的 a Test [unsupported]") == [
        *("第", "44", "条", "o", "ran", "的", "test")
    ]
    assert exact("ＡＢＣ，年假。", "abc 年假")
    assert best_f1("yes", ["no", "yes"]) == 1.0


def record(number: int, **more: object) -> Record:
    return Record(id=f"q{number}", **more)  # type: ignore[arg-type]


def test_quotes_answers_and_refusals() -> None:
    gold = ((Gold(place="a"),), (Gold(place="b"),))
    asked = suite(
        question(1, "?", gold=gold, answers=("24 days",)),
        question(2, "?", gold=gold),
        question(3, "?", answerable=False),
        question(4, "?", answerable=False),
        question(5, "?"),
        kinds=("answers",),
    )
    values = measure(
        asked,
        [
            record(1, answer="24 days", refusal=False, quotes=4, quotes_gold=3,
                   quotes_identical=4, needs_quoted=(1,), unsupported=2),
            record(2, answer="no", refusal=True),
            record(3, answer="no", refusal=True),
            record(4, answer="yes", refusal=False, quotes=2, quotes_identical=1),
            record(5, failed="model_failed: it broke"),
        ],
    )  # fmt: skip
    assert values["q1"] == {
        "failed": 0.0,
        "quotes.identical": 1.0,
        "quotes.precision": 0.75,
        "quotes.recall": 0.5,
        "answers.unsupported": 2.0,
        "answers.exact": 1.0,
        "answers.f1": 1.0,
        "refusal.correct": 1.0,
        "refusal.false": 0.0,
    }
    assert values["q2"]["quotes.recall"] == 0.0
    assert values["q2"]["refusal.false"] == 1.0
    assert values["q3"] == {"failed": 0.0, "refusal.correct": 1.0, "refusal.missed": 0.0}
    assert values["q4"]["refusal.missed"] == 1.0
    assert values["q4"]["quotes.identical"] == 0.5
    assert values["q5"] == {"failed": 1.0}
    average = means(values)
    assert average["refusal.correct"].value == 0.5
    assert average["refusal.correct"].n == 4
    assert average["failed"].value == 0.2
    assert list(average)[-1] == "failed"


def test_all_of_several_golds_within_ten() -> None:
    two = ((Gold(place="a"),), (Gold(place="b"),))
    asked = suite(
        question(1, "?", gold=two), question(2, "?", gold=two), question(3, "?", gold=two[:1])
    )
    depths = {"fused": 100}
    values = measure(
        asked,
        [
            record(1, ranks={"fused": (10, 1)}, depths=depths),
            record(2, ranks={"fused": (11, 1)}, depths=depths),
            record(3, ranks={"fused": (1,)}, depths=depths),
        ],
    )
    assert [one.get("fused.All@10") for one in values.values()] == [1.0, 0.0, None]


def test_a_failed_question_found_nothing() -> None:
    asked = suite(
        question(1, "?", gold=((Gold(place="a"),),)), question(2, "?", gold=((Gold(place="a"),),))
    )
    done = record(1, ranks={"dense": (1,)}, depths={"dense": 150})
    values = measure(asked, [done, record(2, failed="x: y")])
    assert values["q1"]["dense.R@10"] == 1.0
    assert values["q2"]["dense.R@10"] == 0.0


CHOICES = ("1. O-RAN.WG3", "2. O-RAN.WG4", "3. O-RAN.WG1", "4. The open fronthaul group")


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("3", (3, "number")),
        ("The answer is 2.", (2, "number")),
        ("正确答案是4。", (4, "number")),
        ("3. O-RAN.WG1 [1]", (3, "number")),
        ("It is the group O-RAN.WG4 [2]", (2, "text")),
        ("O-RAN.WG4 or O-RAN.WG3", (None, "")),
        ("The working group of the open fronthaul specifies it", (4, "terms")),
        ("It has 3 parts", (None, "")),
        ("7", (None, "")),
        ("", (None, "")),
    ],
)
def test_which_option_is_meant(answer: str, chosen: tuple[int | None, str]) -> None:
    asked = Question(id="q", text="Which?", choices=CHOICES, correct=3)
    assert choose(asked, answer, [], refused=False) == chosen
    assert choose(asked, answer, [], refused=True) == (None, "")


def test_options_are_numbered_once() -> None:
    asked = Question(id="q", text="Which?", choices=CHOICES, correct=3)
    assert with_choices(asked).splitlines()[:3] == ["Which?", "1. O-RAN.WG3", "2. O-RAN.WG4"]


def test_choice_accuracy_counts_what_has_options() -> None:
    asked = suite(
        question(1, "?", choices=("a", "b"), correct=2),
        question(2, "?", choices=("a", "b"), correct=2),
        question(3, "?", choices=("a", "b"), correct=2),
        question(4, "?"),
        kinds=("choice",),
    )
    found = measure(asked, [record(1, chosen=2), record(2, chosen=1), record(3), record(4)])
    average = means(found)
    assert (average["choice.accuracy"].value, average["choice.accuracy"].n) == (1 / 3, 3)
    assert average["choice.chosen"].value == 2 / 3


def test_times_are_percentiles_and_p99_needs_a_thousand() -> None:
    few = times([record(i, timings={"total": float(i)}) for i in range(1, 102)])["total"]
    assert (few.n, few.p50, few.p95, few.p99) == (101, 51.0, 96.0, None)
    many = times([record(i, timings={"total": float(i)}) for i in range(1001)])["total"]
    assert many.p99 == 990.0
    assert times([record(1, timings={"one": 3.0})])["one"].p95 == 3.0

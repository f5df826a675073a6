"""Which hits are gold passages."""

from __future__ import annotations

import pytest

from headrace.evaluation.format import Gold, Question
from headrace.evaluation.gold import gold_of, matches, ranks
from headrace.types import Hit, Span


def hit(text: str = "", *path: str, source: str = "laws/civil.md", title: str = "民法典") -> Hit:
    return Hit(1, "d", source, title, path, Span(0, len(text)), text, 0.0, {})


@pytest.mark.parametrize(
    ("gold", "found"),
    [
        (Gold(document="civil.md"), True),
        (Gold(document="laws/civil.md"), True),
        (Gold(document="ivil.md"), False),
        (Gold(title="民法典"), True),
        (Gold(title="民法"), False),
        (Gold(path=("民法典", "第五十四条")), True),
        (Gold(path=("第二章", "第五十四条")), True),
        (Gold(path=("第五十四条", "第二章")), False),
        (Gold(path=("第五十五条",)), False),
        (Gold(place="第五十四条"), True),
        (Gold(place="第五十条"), False),
        (Gold(contains=("经营 能力", "登记")), True),
        (Gold(contains=("经营能力", "注销")), False),
        (Gold(document="civil.md", place="第五十五条"), False),
    ],
)
def test_everything_given_must_hold(gold: Gold, found: bool) -> None:
    text = "自然人有经营能力，经登记为个体工商户。"
    assert matches(gold, hit(text, "第二章", "第五十四条")) is found


@pytest.mark.parametrize(
    ("place", "title", "found"),
    [
        ("Article 2", "Article 2 Dogs", True),
        ("Article 2", "Article 25", False),
        ("第三十八条", "第三十八条之一", False),
        ("第三十八条之一", "第三十八条之一", True),
    ],
)
def test_a_place_is_not_the_beginning_of_another_number(
    place: str, title: str, found: bool
) -> None:
    assert matches(Gold(place=place), hit("x", title)) is found


@pytest.mark.parametrize("text", ["Term: penstock\nUnit: DN 900", "penstock | 压力管道 | A pipe"])
def test_a_row_is_named_by_a_cell(text: str) -> None:
    assert matches(Gold(place="penstock"), hit(text))
    assert not matches(Gold(place="pen"), hit("Term: penstock"))


def test_ranks_of_needs() -> None:
    """A need may be satisfied by one of several passages, and a hit may satisfy several."""
    hits = [hit("a"), hit("b c"), hit("d"), hit("b")]
    wanted = (
        (Gold(contains=("b",)),),
        (Gold(contains=("x",)), Gold(contains=("d",))),
        (Gold(contains=("c",)),),
        (Gold(contains=("none",)),),
    )
    question = Question(id="q", text="?", gold=wanted)
    assert gold_of(question, hits) == [set(), {0, 2}, {1}, {0}]
    assert ranks(question, hits) == (2, 3, 2, 0)
    assert ranks(question, []) == (0, 0, 0, 0)

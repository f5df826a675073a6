"""Which hits are gold passages."""

from __future__ import annotations

import pytest

from headrace.evaluation.format import Gold, Question
from headrace.evaluation.gold import MOST_LOOKED_FOR, Seen, gold_of, nowhere, ranks
from headrace.types import Hit, Span


def hit(text: str = "", *path: str, source: str = "laws/civil.md", title: str = "民法典") -> Hit:
    return Hit(1, "d", source, title, path, Span(0, len(text)), text, 0.0, {})


def is_gold(gold: Gold, hit: Hit) -> bool:
    return Seen(hit).is_gold(gold)


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
    assert is_gold(gold, hit(text, "第二章", "第五十四条")) is found


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
    assert is_gold(Gold(place=place), hit("x", title)) is found


@pytest.mark.parametrize("text", ["Term: penstock\nUnit: DN 900", "penstock | 压力管道 | A pipe"])
def test_a_row_is_named_by_a_cell(text: str) -> None:
    assert is_gold(Gold(place="penstock"), hit(text))
    assert not is_gold(Gold(place="pen"), hit("Term: penstock"))


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


def test_a_file_system_may_write_a_name_in_its_own_way() -> None:
    assert is_gold(Gold(document="caf\u00e9.md"), hit(source="docs/cafe\u0301.md"))


def test_what_is_nowhere_is_named() -> None:
    hits = [hit("a keeper", "Keys"), hit("24 days", "Leave"), hit("x", title="税法")]
    gold = {
        "text": ((Gold(contains=("keeper",)),),),
        "title": ((Gold(title="税法"),),),
        "path": ((Gold(path=("民法典", "Leave")),),),
        "other path": ((Gold(path=("税法", "Leave")),),),
        "place": ((Gold(place="Kays"),),),
        "any": ((Gold(place="Kays"), Gold(path=("Keys",))),),
        "one of two": ((Gold(title="税法"),), (Gold(title="税收法"),)),
    }
    asked = [Question(id=name, text="?", gold=needs) for name, needs in gold.items()]
    assert nowhere(asked, hits) == ["other path", "place", "one of two"]
    many = [Question(id=str(n), text="?", gold=((Gold(place="Kays"),),)) for n in range(99)]
    assert nowhere(many, hits) == [str(n) for n in range(MOST_LOOKED_FOR)]

"""How lists are joined and links lift what they lead to: the pure parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.bridge import SHARE, Link, ranked, scaled, unknown
from headrace.pipeline.finding import joined
from headrace.types import Hit, Span


def hit(number: int, score: float = 0.0, text: str = "text", title: str = "") -> Hit:
    title = title or f"Title {number}"
    return Hit(
        chunk_id=number,
        document_id=f"d{number}",
        source="s",
        title=title,
        path=(title,),
        span=Span(0, len(text)),
        text=text,
        score=score,
        scores={"fused": score},
    )


def ids(hits: Sequence[Hit]) -> list[int]:
    return [each.chunk_id for each in hits]


def test_what_the_best_passage_links_to_comes_before_what_is_half_as_good() -> None:
    found = [hit(1, 1.0), hit(2, 0.6), hit(3, 0.4), hit(4, 0.0)]
    best, new = ranked(found, [(Link(found[0], 9, "Nine"), hit(9))], 4)
    assert ids(best) == [1, 2, 9, 3]
    assert ids(new) == [9]
    assert best[2].scores["linked"] == SHARE


def test_of_several_links_the_best_counts_and_own_scores_stay() -> None:
    found = [hit(1, 1.0), hit(2, 0.8), hit(3, 0.0)]
    links = [(Link(found[1], 3, "Three"), found[2]), (Link(found[0], 3, "Three"), found[2])]
    best, new = ranked(found, links, 3)
    assert [each.score for each in best] == [1.0, 0.8, SHARE]
    assert new == []


def test_without_links_nothing_changes() -> None:
    found = [hit(1, 0.9), hit(2, 0.1)]
    assert ranked(found, [], 1) == ([found[0]], [])
    assert scaled([]) == {}
    assert scaled([hit(5, 0.3)]) == {5: 1.0}


@given(st.lists(st.lists(st.integers(1, 12), unique=True, max_size=8), min_size=2, max_size=4))
def test_every_lists_first_is_among_the_first_of_the_joined(lists: list[list[int]]) -> None:
    found = joined([[hit(number) for number in each] for each in lists], 20)
    assert sorted(ids(found)) == sorted({number for each in lists for number in each})
    firsts = {each[0] for each in lists if each}
    assert set(ids(found)[: len(firsts)]) == firsts
    assert all(a.score >= b.score for a, b in pairwise(found))


def test_names_that_the_question_does_not_have() -> None:
    text = (
        "The novel of Grace Miller was published by Tin Radio, under 《出版管理条例》, in Weirford."
    )
    names = [name for _, name in unknown([hit(1, text=text)], "Who published Grace Miller?")]
    assert names == ["Tin Radio", "出版管理条例"]

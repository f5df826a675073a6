"""Fusion: lexical search only adds, and equal input gives equal output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.answering import RetrievalOptions
from headrace.retrieval.base import Scored
from headrace.retrieval.fuse import convex, distinct, fuse, reciprocal_ranks, with_documents

LIST = st.dictionaries(st.integers(1, 50), st.floats(-1e6, 1e6, allow_nan=False), max_size=20).map(
    lambda d: [Scored(*item) for item in sorted(d.items(), key=lambda item: -item[1])]
)


def test_convex_weighs_normalised_scores() -> None:
    dense = [Scored(1, 0.9), Scored(2, 0.8), Scored(3, 0.7)]
    lexical = [Scored(2, 20.0), Scored(4, 10.0)]
    found = dict(convex(dense, lexical, 0.7))
    assert found == pytest.approx({1: 0.7, 2: 0.35 + 0.3, 3: 0.0, 4: 0.0})


def test_ranks_are_summed_as_reciprocals() -> None:
    found = dict(reciprocal_ranks(([Scored(1, 9.0), Scored(2, 8.0)], [Scored(2, 1.0)]), 20))
    assert found == pytest.approx({1: 1 / 21, 2: 1 / 22 + 1 / 21})


def test_the_option_chooses() -> None:
    dense, lexical = [Scored(1, 1.0), Scored(2, 0.5)], [Scored(2, 3.0)]
    assert fuse(dense, lexical, RetrievalOptions(fusion="rrf"))[0].chunk_id == 2
    assert fuse(dense, lexical, RetrievalOptions(dense_weight=1.0))[0].chunk_id == 1


@given(LIST, LIST, st.floats(0, 1))
def test_nothing_is_lost_and_order_is_by_score(
    dense: list[Scored], lexical: list[Scored], weight: float
) -> None:
    for found in (convex(dense, lexical, weight), reciprocal_ranks((dense, lexical), 20)):
        assert {s.chunk_id for s in found} == {s.chunk_id for s in dense + lexical}
        assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


def test_distinct_keeps_the_first_of_equals() -> None:
    assert distinct([("a", 1), ("b", 2), ("a", 3), ("c", 4)], 2) == [1, 2]


def test_documents_support_their_hits() -> None:
    found = [Scored(1, 1.0), Scored(2, 0.8), Scored(3, 0.8)]
    raised = with_documents(found, [7, 8, 8], 0.2)
    # sums 1.0 and 1.6: document 8 gains 0.2, document 7 0.2 * sqrt(1 / 1.6)
    assert dict(raised) == pytest.approx({1: 1.158114, 2: 1.0, 3: 1.0}, abs=1e-6)
    assert [hit.chunk_id for hit in with_documents(found, [7, 8, 8], 1.0)] == [2, 3, 1]
    assert with_documents(found, [7, 8, 8], 0.0) == found
    assert with_documents([], [], 0.2) == []


@given(LIST, st.floats(0, 1))
def test_where_documents_have_one_chunk_each_the_order_stays(
    found: list[Scored], weight: float
) -> None:
    found = [Scored(i, abs(score)) for i, score in found]
    found.sort(key=lambda hit: (-hit.score, hit.chunk_id))
    raised = with_documents(found, [hit.chunk_id for hit in found], weight)
    before = dict(found)
    after = [before[hit.chunk_id] for hit in raised]
    assert after == pytest.approx(sorted(after, reverse=True))

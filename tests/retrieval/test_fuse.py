"""Fusion: lexical search only adds, and equal input gives equal output."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.answering import RetrievalOptions
from headrace.retrieval import fuse as module
from headrace.retrieval.base import Ranking, Scored
from headrace.retrieval.fuse import SUPPORTERS, distinct, reciprocal_ranks

LIST = st.dictionaries(st.integers(1, 50), st.floats(-1e6, 1e6, allow_nan=False), max_size=20).map(
    lambda d: [Scored(*item) for item in sorted(d.items(), key=lambda item: -item[1])]
)


def convex(dense: list[Scored], lexical: list[Scored], weight: float) -> list[Scored]:
    return module.convex(Ranking.of(dense), Ranking.of(lexical), weight).listed()


def with_documents(found: list[Scored], documents: list[int], weight: float) -> list[Scored]:
    owners = np.array(documents, np.int64)
    return module.with_documents(Ranking.of(found), owners, weight).listed()


def fuse(dense: list[Scored], lexical: list[Scored], options: RetrievalOptions) -> list[Scored]:
    return module.fuse(Ranking.of(dense), Ranking.of(lexical), options).listed()


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


# The same in plain words ----------------------------------------------------------------------

LONG = st.lists(
    st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0]) | st.floats(-9, 9)),
    max_size=50,
    unique_by=lambda item: item[0],
).map(lambda items: [Scored(*item) for item in sorted(items, key=lambda item: -item[1])])


def plain_shares(found: list[Scored], weight: float) -> dict[int, float]:
    low = min((one.score for one in found), default=0.0)
    width = max((one.score for one in found), default=0.0) - low
    return {i: weight * ((score - low) / width) if width > 0 else weight for i, score in found}


def plain_order(sums: dict[int, float]) -> list[Scored]:
    return [Scored(i, sums[i]) for i in sorted(sums, key=lambda i: (-sums[i], i))]


def plain_convex(dense: list[Scored], lexical: list[Scored], weight: float) -> list[Scored]:
    sums = plain_shares(dense, weight)
    for i, share in plain_shares(lexical, 1.0 - weight).items():
        sums[i] = sums.get(i, 0.0) + share
    return plain_order(sums)


def plain_documents(found: list[Scored], owner: dict[int, int], weight: float) -> list[Scored]:
    sums: dict[int, float] = {}
    for i, score in found[:SUPPORTERS]:
        sums[owner[i]] = sums.get(owner[i], 0.0) + max(score, 0.0)
    most = max(sums.values(), default=0.0)
    if most <= 0 or not weight:
        return found
    top = weight * found[0].score
    gains = {document: top * sqrt(value / most) for document, value in sums.items()}
    return plain_order({i: score + gains.get(owner[i], 0.0) for i, score in found})


@given(LONG, LONG, st.floats(0, 1), st.floats(0, 1), st.integers(1, 20))
def test_scores_and_order_are_those_of_the_plain_words_to_the_last_bit(
    dense: list[Scored], lexical: list[Scored], weight: float, raise_by: float, documents: int
) -> None:
    found = convex(dense, lexical, weight)
    assert found == plain_convex(dense, lexical, weight)
    owner = {i: i % documents for i in range(61)}
    raised = with_documents(found, [owner[i] for i, _ in found], raise_by)
    assert raised == plain_documents(found, owner, raise_by)

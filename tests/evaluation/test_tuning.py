"""Tuning: measures by hand, folds, and a collection that gains by it."""

from __future__ import annotations

from collections.abc import Iterator
from math import log2
from pathlib import Path

import numpy as np
import pytest

from headrace.config.answering import RetrievalOptions
from headrace.engines.base import ModelInfo
from headrace.evaluation.format import Gold, Question
from headrace.evaluation.tuning import MEASURES, Asked, fold_of, measures, tune
from headrace.retrieval.base import Scored
from headrace.retrieval.collections import Collections
from headrace.retrieval.features import NAMES
from headrace.types import Role


def hits(*needs: set[int]) -> list[frozenset[int]]:
    return [frozenset(one) for one in needs]


def test_measures_by_hand() -> None:
    found = dict(zip(MEASURES, measures(hits(set(), {0}, {0}, set(), set(), {1}), 2), strict=True))
    assert found["R@1"] == 0
    assert found["R@5"] == 0.5
    assert found["R@10"] == found["R@100"] == 1
    assert found["RR@10"] == 0.5
    ideal = 1 + 1 / log2(3)
    assert found["nDCG@10"] == pytest.approx((1 / log2(3) + 1 / log2(7)) / ideal)
    assert measures([], 1) == (0.0,) * len(MEASURES)
    far = [frozenset[int]()] * 30 + hits({0})
    assert dict(zip(MEASURES, measures(far, 1), strict=True))["R@50"] == 1


def test_equal_questions_share_a_fold_and_all_folds_are_used() -> None:
    assert fold_of(Question(id="1", text="谁可以 成为？")) == fold_of(
        Question(id="2", text="谁可以成为？")
    )
    assert {fold_of(Question(id=str(i), text=f"question {i}")) for i in range(100)} == {
        0,
        1,
        2,
        3,
        4,
    }


def asked(count: int, *, helpful: bool) -> list[Asked]:
    """Gold is at a random place of the lists; if `helpful`, the feature `bigrams` points at it."""
    generator = np.random.default_rng(3)
    made = []
    for number in range(count):
        ids = list(range(1, 21))
        gold = int(generator.integers(0, 20))
        rows = generator.random((20, len(NAMES))).astype(np.float32)
        if helpful:
            rows[gold, NAMES.index("bigrams")] = 3
        scores = [Scored(i, 1.0 - i / 100) for i in ids]
        question = Question(id=str(number), text=f"question {number}", gold=((Gold(title="x"),),))
        needs = {ids[gold]: frozenset({0})}
        made.append(Asked(question, scores, scores, needs, ids, rows, {}))
    return made


@pytest.fixture
def collections(tmp_path: Path) -> Iterator[Collections]:
    made = Collections(tmp_path / "collections")
    yield made
    made.close()


@pytest.mark.parametrize("helpful", [True, False])
def test_only_what_pays_is_kept(collections: Collections, helpful: bool) -> None:
    info = ModelInfo("toy", Role.EMBEDDER, "echo", "toy-1", 16)
    index = collections.create("laws", "toy", info)
    tuned = tune(index, asked(100, helpful=helpful), RetrievalOptions(), "toy-1")
    assert [row.name for row in tuned.rows] == ["configured", "weights", "linear", "trees"]
    assert all(len(row.folds) == 5 for row in tuned.rows)
    assert tuned.rows[0].gain == 0
    if not helpful:
        assert (tuned.chosen, tuned.fitted) == ("configured", None)
        return
    assert tuned.chosen in ("linear", "trees")
    assert tuned.fitted is not None
    assert tuned.fitted.measured["R@1"] > 0.9
    index.ranker.write(tuned.fitted)
    assert index.ranker.read("toy-1") is not None


def test_a_reranker_s_score_is_one_more_feature(collections: Collections) -> None:
    info = ModelInfo("toy", Role.EMBEDDER, "echo", "toy-1", 16)
    index = collections.create("laws", "toy", info)
    generator = np.random.default_rng(5)
    known = [
        one._replace(reranked={i: float(generator.random()) for i in one.ids[:15]})
        for one in asked(100, helpful=True)
    ]
    tuned = tune(index, known, RetrievalOptions(), "toy-1", "rank")
    assert [row.name for row in tuned.rows][-2:] == ["reranker", "reranker+"]
    assert tuned.rows[-1].gain > 0
    assert tuned.fitted is not None
    assert tuned.fitted.reranker == "rank"
    assert tuned.fitted.reranked is not None

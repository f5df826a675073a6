"""Tuning: measures by hand, folds, and a collection that gains by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log2
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from headrace.config.answering import RetrievalOptions
from headrace.engines.base import ModelInfo
from headrace.errors import ConfigError
from headrace.evaluation.collecting import Asked, Found, fold_of
from headrace.evaluation.fitting import Example
from headrace.evaluation.format import Gold, Question
from headrace.evaluation.tuning import MEASURES, WAYS, Views, Way, held_out, measures, tune
from headrace.retrieval.base import NewChunk, Scored, chunk_key
from headrace.retrieval.collections import Collections
from headrace.retrieval.ensemble import Linear
from headrace.retrieval.features import NAMES, OWN
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.types import Chunk, Document, Parsed, Role, Span


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
        vector = generator.normal(size=16).astype(np.float32)
        found = Found(question, vector, scores, scores, needs, {})
        documents = np.arange(20) // 10
        made.append(Asked(found, np.array(ids), documents, rows, len(ids)))
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
    assert [row.name for row in tuned.rows] == ["configured", "weights", *WAYS]
    assert all(len(row.folds) == 5 for row in tuned.rows)
    assert tuned.rows[0].gain == 0
    if not helpful:
        assert (tuned.chosen, tuned.fitted) == ("configured", None)
        return
    assert tuned.chosen in WAYS
    assert tuned.fitted is not None
    assert tuned.fitted.measured["R@1"] > 0.9
    index.ranker.write(tuned.fitted)
    assert index.ranker.read("toy-1") is not None


def test_a_reranker_s_score_is_one_more_feature(collections: Collections) -> None:
    info = ModelInfo("toy", Role.EMBEDDER, "echo", "toy-1", 16)
    index = collections.create("laws", "toy", info)
    generator = np.random.default_rng(5)
    known = [
        one._replace(
            found=one.found._replace(
                reranked={i: float(generator.random()) for i in one.ids[:15].tolist()}
            )
        )
        for one in asked(100, helpful=True)
    ]
    tuned = tune(index, known, RetrievalOptions(), "toy-1", "rank")
    assert [row.name for row in tuned.rows][-2:] == ["reranker", "reranker+"]
    assert tuned.rows[-1].gain > 0
    assert tuned.fitted is not None
    assert tuned.fitted.reranker == "rank"
    assert tuned.fitted.reranked is not None


def alike(groups: int, each: int) -> list[Asked]:
    """Questions in groups that are asked nearly alike and answered by one passage, which no list
    holds; nothing else tells the candidates apart. Chunks are 1 to `groups`, one in a document."""
    generator = np.random.default_rng(7)
    centres = generator.normal(size=(groups, 16))
    made = []
    for number in range(groups * each):
        group = number % groups
        vector = centres[group] + 0.2 * generator.normal(size=16)
        listed = [i for i in generator.permutation(np.arange(1, groups + 1)) if i != group + 1]
        ids = np.array([*listed[:20], group + 1])
        scores = [Scored(int(i), 1.0 - place / 100) for place, i in enumerate(ids[:20])]
        question = Question(id=str(number), text=f"question {number}", gold=((Gold(title="x"),),))
        needs = {group + 1: frozenset({0})}
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        found = Found(question, unit, scores, scores, needs, {})
        rows = np.zeros((21, len(NAMES)), np.float32)
        rows[:, : len(OWN)] = generator.random((21, len(OWN)))
        made.append(Asked(found, ids, ids, rows, 20))
    return made


class ByChunk:
    """As much of a snapshot as fitting asks of: every chunk is a document, all of them there."""

    def documents(self, ids: np.ndarray) -> np.ndarray:
        return ids


def test_no_question_is_ordered_by_what_it_taught() -> None:
    asked_ = [
        one._replace(found=one.found._replace(needs={int(one.ids[0]): frozenset({0})}))
        for one in alike(30, 4)
    ]
    for number, one in enumerate(asked_):
        one.rows[:, 0] = number
    folds = [number % 3 for number in range(len(asked_))]
    taught: list[set[int]] = []

    def fit(some: Sequence[Example]) -> Linear:
        taught.append({int(one.rows[0, 0]) for one in some})
        return Linear((0.0, 1.0, *(0.0,) * (len(OWN) - 2)))

    views = Views(asked_, folds, cast(CollectionSnapshot, ByChunk()))
    lists = held_out({"mine": Way(fit)}, views)["mine"]
    every = set(range(len(asked_)))
    assert taught == [{i for i in every if folds[i] != fold} for fold in range(3)]
    for one, listed in zip(asked_, lists, strict=True):
        assert listed == one.ids[:20][np.argsort(-one.rows[:20, 1], kind="stable")].tolist()


def test_nobody_remembers_a_question_of_the_same_fold() -> None:
    """Each of two questions of a group is all that tells the other of its passage."""
    asked_ = alike(40, 2)
    passage = NAMES.index("asked_passage")

    def told(folds: Sequence[int], left_out: int | None) -> list[bool]:
        views = Views(asked_, folds, cast(CollectionSnapshot, ByChunk())).without(left_out)
        return [bool(view.rows[20, passage] > 0) for view in views]

    together = told([i % 40 for i in range(80)], 3)
    assert [i for i in (3, 43) if together[i]] == []
    apart = told([int(i >= 40) for i in range(80)], 1)
    assert all(apart[40:])  # a new question sees all of the other fold
    assert not any(apart[:40])  # and those of the other fold nothing of what is left out
    inner = [fold_of(one.found.question, 5, b"inner") for one in asked_]
    known = told([0] * 80, None)
    assert [known[i] for i in range(40)] == [inner[i] != inner[i + 40] for i in range(40)]


def test_without_gold_elsewhere_the_order_stays() -> None:
    nothing = [one._replace(found=one.found._replace(needs={})) for one in alike(30, 2)]
    views = Views(nothing, [i % 2 for i in range(60)], cast(CollectionSnapshot, ByChunk()))
    lists = held_out(WAYS, views)
    for name in WAYS:
        assert lists[name] == [one.ids[:20].tolist() for one in nothing]


def test_past_questions_bring_in_what_no_search_finds(collections: Collections) -> None:
    info = ModelInfo("toy", Role.EMBEDDER, "echo", "toy-1", 16)
    index = collections.create("laws", "toy", info)
    parsed = Parsed("".join(f"passage {n:04}" for n in range(60)), "text/plain", "x")
    chunks = [
        NewChunk(
            Chunk(Span(12 * n, 12 * n + 12), ()),
            chunk_key("toy-1", str(n)),
            np.eye(16, dtype=np.float32)[n % 16],
        )
        for n in range(60)
    ]
    index.upsert(Document("x", "x.md", "0" * 64, parsed, "plain", labels=("public",)), chunks)
    tuned = tune(index, alike(60, 5), RetrievalOptions(), "toy-1")
    assert tuned.chosen in ("linear+past", "trees+past")
    means = {row.name: dict(zip(MEASURES, row.means, strict=True)) for row in tuned.rows}
    assert means["linear"]["R@100"] == 0
    assert means[tuned.chosen]["R@10"] > 0.8
    assert tuned.fitted is not None
    index.ranker.write(tuned.fitted)
    ranker = index.ranker.read("toy-1", 16)
    assert ranker is not None
    past = ranker.past(index.snapshot(), index.places)
    assert past is not None
    found = alike(60, 5)[7].found
    assert set(found.gold) <= set(past.nearest(past.nearness(found.vector)).tolist())
    with pytest.raises(ConfigError, match="16 dimensions"):
        index.ranker.read("toy-1", 384)

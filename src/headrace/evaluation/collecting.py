"""What fitting needs of a suite's questions: their lists, their candidates, and what is gold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.config.answering import RetrievalOptions
from headrace.errors import BadRequest
from headrace.evaluation.format import Gold, Question, Suite
from headrace.evaluation.gold import gold_of
from headrace.pipeline.services import Services
from headrace.retrieval.base import Scored
from headrace.retrieval.collections import check_embedder, held_embedder
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.features import feature_rows
from headrace.retrieval.order import POOL, candidates, fused
from headrace.retrieval.past import NEAREST, Past
from headrace.retrieval.ranker import digest
from headrace.retrieval.search import search
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.types import BULK, Filter

FOLDS = 5
LEAST_QUESTIONS = 50
STEP = 32
"""Questions embedded at once."""

DEPTHS = (150, 200)
LOOKED_AT = 50
"""Hits for a gold passage's own words, where it is looked for beside the question's lists."""

SPARE = 4
"""Times as many past questions are looked at as bring in passages, since folds leave some out."""


class Found(NamedTuple):
    """One question as it was searched: its vector float32 [dimensions], both lists, which needs
    each chunk of them satisfies (and others that do), and a reranker's scores by chunk id."""

    question: Question
    vector: npt.NDArray[np.float32]
    dense: list[Scored]
    lexical: list[Scored]
    needs: dict[int, frozenset[int]]
    reranked: dict[int, float]

    @property
    def gold(self) -> list[int]:
        return [chunk_id for chunk_id, needs in self.needs.items() if needs]


class Asked(NamedTuple):
    """A question with its candidates: chunk ids, their documents' numbers int64 [n] and features
    float32 [n, len(NAMES)]. The first `pooled` of them are what search has found; the others answer
    like questions of the suite."""

    found: Found
    ids: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]
    rows: npt.NDArray[np.float32]
    pooled: int

    def gold(self) -> npt.NDArray[np.bool_]:
        """bool [n]: which candidates are gold."""
        return np.array([bool(self.found.needs.get(i)) for i in self.ids.tolist()], np.bool_)


def fold_of(question: Question, count: int = FOLDS, salt: bytes = b"") -> int:
    """Equal texts share a fold, so that no question is learned from its twin."""
    return int.from_bytes(digest(question.text, salt)) % count


async def collect(
    services: Services, suite: Suite, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Asked], str]:
    """Every question of the suite that has gold passages, searched, in the bulk lane; and the
    fingerprint of the collection's embedder. Raises `BadRequest` for too few questions."""
    questions = [question for question in suite.questions if question.gold]
    if len(questions) < LEAST_QUESTIONS:
        raise BadRequest(
            f"{len(questions)} questions of the suite name their gold passages; fitting to fewer "
            f"than {LEAST_QUESTIONS} would be fitting to chance: add questions with their `gold`",
            field="questions",
        )
    options = services.config.collection(suite.collection)
    retrieval = options.retrieval or services.config.retrieval
    index, held = await asyncio.to_thread(services.collections.opened, suite.collection)
    embedder = options.embedder or services.config.defaults.embedder
    embedder = await held_embedder(services.models, held, embedder, BULK)
    check_embedder(index.name, held, embedder, await services.models.info(embedder, call=BULK))
    where = Filter(access=suite.access)
    found: list[Found] = []
    for start in range(0, len(questions), STEP):
        some = questions[start : start + STEP]
        texts = [question.text for question in some]
        vectors = await services.models.embed(embedder, texts, "query", call=BULK)
        for question, vector in zip(some, vectors, strict=True):
            reranked: dict[int, float] = {}
            if options.reranker:
                result = await search(
                    index,
                    services.models,
                    embedder,
                    question.text,
                    options=retrieval.model_copy(update={"ranker": "off"}),
                    where=where,
                    k=retrieval.rerank_depth,
                    reranker=options.reranker,
                    call=BULK,
                )
                reranked = {
                    h.chunk_id: h.scores["rerank"] for h in result.hits if "rerank" in h.scores
                }
            found.append(await asyncio.to_thread(_found, index, question, vector, where, reranked))
            if progress:
                progress(len(found), len(questions))
    return await asyncio.to_thread(_asked, index, found, retrieval), held.fingerprint


def _found(
    index: EmbeddedIndex,
    question: Question,
    vector: npt.NDArray[np.float32],
    where: Filter,
    reranked: dict[int, float],
) -> Found:
    snapshot = index.snapshot()
    dense = snapshot.search_dense(vector, max(DEPTHS), where)
    lexical = snapshot.search_lexical(question.text, max(DEPTHS), where)
    needs = _needs(index, question, [one.chunk_id for one in (*dense, *lexical)], where)
    met = frozenset[int]().union(*needs.values())
    for number, need in enumerate(question.gold):
        if number not in met:  # no list holds it: look for it by what the suite says of it
            words = " ".join(map(_words, need))
            near = snapshot.search_lexical(words, LOOKED_AT, where)
            more = _needs(index, question, [one.chunk_id for one in near], where)
            needs.update((chunk_id, each) for chunk_id, each in more.items() if number in each)
    return Found(question, vector, dense, lexical, needs, reranked)


def _needs(
    index: EmbeddedIndex, question: Question, ids: Sequence[int], where: Filter
) -> dict[int, frozenset[int]]:
    hits = index.get({chunk_id: {"stage": 0.0} for chunk_id in ids}, where)
    return dict(zip((hit.chunk_id for hit in hits), gold_of(question, hits), strict=True))


def _words(gold: Gold) -> str:
    return " ".join((gold.title, *gold.path, gold.place, *gold.contains))


def past_of(found: Sequence[Found], snapshot: CollectionSnapshot) -> Past:
    """The questions as a ranker would remember them."""
    vectors = np.stack([one.vector for one in found])
    return Past(vectors, [one.gold for one in found], snapshot.documents)


def _asked(index: EmbeddedIndex, found: Sequence[Found], options: RetrievalOptions) -> list[Asked]:
    """The questions with their candidates, among them what the nearest other questions bring in:
    more of those than a ranker would take, since some will be left out with their fold."""
    snapshot = index.snapshot()
    past = past_of(found, snapshot)
    texts = [digest(one.question.text) for one in found]
    made = []
    for one, text in zip(found, texts, strict=True):
        others = np.array([other != text for other in texts])
        brought = past.nearest(past.nearness(one.vector, others), SPARE * NEAREST)
        depth = options.depth
        joined = fused(snapshot, one.dense[:depth], one.lexical[:depth], one.question.text, options)
        pool = candidates(index, snapshot, joined, one.lexical[:depth], brought.tolist())
        rows = feature_rows(one.question.text, one.vector, pool)
        searched = {each.chunk_id for each in joined[:POOL]}
        pooled = sum(chunk_id in searched for chunk_id in pool.ids.tolist())
        made.append(Asked(one, pool.ids, pool.documents, rows, pooled))
    return made

"""From a query to hits: the whole of retrieval on one screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.engines import machine
from headrace.errors import BadRequest
from headrace.retrieval import compressed
from headrace.retrieval.base import Ranking
from headrace.retrieval.collections import check_embedder, held_embedder
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.fuse import without_copies
from headrace.retrieval.hurry import Embedded, embedded
from headrace.retrieval.order import NOT_RANKED, POOL, Order, joined, order_for, ranked, reordered
from headrace.retrieval.rerank import Stage, cascade, cascade_of
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.serving.models import Models, both, together
from headrace.serving.paces import Paces
from headrace.types import USER, Call, Filter, Hit, SearchResult

T = TypeVar("T")
Vector: TypeAlias = npt.NDArray[np.float32]

SPARE = 8
"""Hits fetched beyond those asked for, in case some are deleted meanwhile or the same text."""

NONE = Ranking.of(())

_executor = ThreadPoolExecutor(
    max_workers=max(2, min(8, machine.cores())), thread_name_prefix="headrace-search"
)
"""More threads than cores wait for Python's lock and not for a core: at 120 questions a second on
two cores, eight threads doubled the median latency of two."""


class Timer:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._start = time.perf_counter()

    def call(self, stage: str, function: Callable[..., T], *arguments: object) -> T:
        start = time.perf_counter()
        result = function(*arguments)
        self.ms[stage] = self.ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
        return result

    async def wait(self, stage: str, work: Awaitable[T]) -> T:
        start = time.perf_counter()
        result = await work
        self.ms[stage] = (time.perf_counter() - start) * 1e3
        return result

    def total(self) -> dict[str, float]:
        return {**self.ms, "total": (time.perf_counter() - self._start) * 1e3}


async def search(
    index: EmbeddedIndex,
    models: Models,
    embedder: str,
    query: str,
    *,
    options: RetrievalOptions,
    where: Filter,
    k: int,
    reranker: str | None = None,
    call: Call = USER,
    paces: Paces | None = None,
    stages: bool = False,
) -> SearchResult:
    """The best `k` hits for a query; see `search_many`."""
    (found,) = await search_many(
        index,
        models,
        embedder,
        [query],
        options=options,
        where=where,
        k=k,
        reranker=reranker,
        call=call,
        paces=paces,
        stages=stages,
    )
    return found


async def search_many(
    index: EmbeddedIndex,
    models: Models,
    embedder: str,
    queries: Sequence[str],
    *,
    options: RetrievalOptions,
    where: Filter,
    k: int,
    reranker: str | None = None,
    call: Call = USER,
    paces: Paces | None = None,
    stages: bool = False,
) -> list[SearchResult]:
    """The best `k` hits for each query, all of one generation; their timings are those of the whole
    batch. `call.then` names the models that come after the search. With `stages`, the results hold
    every stage's whole list, which changes nothing else.

    1. Lexical search and the queries' embedding start at once; dense search follows, if the
    vectors come in time (`retrieval.hurry`). 2. The lists
    are fused, and ordered by the collection's fitted ranker, if there is one (`order`). 3. Texts
    are fetched after that, so what was deleted meanwhile is not among the hits.
    4. Rerankers, if any, order the first of them (`cascade_of`), or what there is time for.

    The steps in threads are two: a change of threads costs as much as a small search.

    `embedder` is the configured one; what the collection holds decides (`held_embedder`). Raises
    `BadRequest` for an empty query, `ConfigError` if the collection's vectors are of an embedder
    that is not there, `UnknownCollection` if it was deleted, and what `models` raises.
    """
    if not all(query.strip() for query in queries):
        raise BadRequest("the query is empty", field="query")
    paces = paces or Paces()
    timer = Timer()
    rerankers = cascade_of(options, reranker, k)
    first = replace(call, then=(*(stage.reranker for stage in rerankers), *call.then))
    wanted = rerankers[0].depth if rerankers else k

    def begin() -> tuple[_Finder, list[Ranking]]:
        snapshot = timer.call("snapshot", index.snapshot)
        order = order_for(index, options, snapshot.embedder)
        finder = _Finder(index, snapshot, order, where, max(order.options.depth, k), wanted, timer)
        return finder, list(map(finder.by_words, queries))

    finder, by_words, (_, vectors, hurried) = await _both_ways(
        *(index, models, embedder, list(queries), begin, first, paces, timer)
    )
    rows: Iterable[Vector | None] = [None] * len(queries) if vectors is None else vectors
    found = await _in_thread(lambda: list(map(finder.find, queries, rows, by_words)))
    lists, skipped = [each.hits for each in found], (*finder.order.refused, *hurried)
    if rerankers and any(lists):
        work = _reranked(index, models, rerankers, queries, lists, call, paces)
        lists, late = await timer.wait("rerank", work)
        lists = finder.reordered(rerankers[-1].reranker, lists, found)
        skipped += late
    return finder.results(found, [hits[:k] for hits in lists], skipped, lists if stages else None)


class _Found(NamedTuple):
    """What was found for one query: hits, each stage's list, features by chunk id."""

    hits: list[Hit]
    lists: dict[str, Ranking]
    features: Mapping[int, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class _Finder:
    """The part of a search after embedding, the same for every query of a batch."""

    index: EmbeddedIndex
    snapshot: CollectionSnapshot
    order: Order
    where: Filter
    depth: int
    wanted: int
    timer: Timer

    def by_words(self, query: str) -> Ranking:
        return self.timer.call("lexical", self.snapshot.matching, query, self.depth, self.where)

    def find(self, query: str, vector: Vector | None, words: Ranking) -> _Found:
        """Without a vector, by words alone, which no ranker was fitted to."""
        call, snapshot, order = self.timer.call, self.snapshot, self.order
        near = NONE
        if vector is not None:
            near = call("dense", snapshot.nearest, vector, self.depth, self.where)
        fused = call("fuse", joined, snapshot, near, words, query, order.options)
        first, features = NOT_RANKED
        if order.ranker is not None and vector is not None:
            given = query, vector, fused.listed(), words.listed(), self.where
            first, features = call("rank", ranked, self.index, snapshot, order.ranker, *given)
        best = [one.chunk_id for one in first]
        best += fused.ids[POOL if first else 0 :][: self.wanted + SPARE].tolist()
        stages = {"dense": near, "lexical": words, "fused": fused, "ranked": Ranking.of(first)}
        scores = _scores(stages, best[: self.wanted + SPARE])
        hits = call("fetch", self.index.get, scores, self.where)
        return _Found(without_copies(hits, self.wanted), stages, features)

    def reordered(
        self, reranker: str, lists: Sequence[list[Hit]], found: Sequence[_Found]
    ) -> list[list[Hit]]:
        return [
            reordered(self.order.ranker, reranker, hits, each.features)
            for hits, each in zip(lists, found, strict=True)
        ]

    def results(
        self,
        found: Sequence[_Found],
        lists: Sequence[Sequence[Hit]],
        skipped: tuple[str, ...],
        ends: Sequence[Sequence[Hit]] | None,
    ) -> list[SearchResult]:
        """What the caller gets; `ends` are the whole lists if every stage's is wanted."""
        timings = self.timer.total()
        return [
            SearchResult(
                hits=tuple(hits),
                generation=self.snapshot.generation,
                timings=timings,
                skipped=skipped,
                stages={} if ends is None else _stages(each.lists, ends[i]),
                ranker=self.order.id,
            )
            for i, (hits, each) in enumerate(zip(lists, found, strict=True))
        ]


async def _both_ways(
    index: EmbeddedIndex,
    models: Models,
    embedder: str,
    queries: list[str],
    begin: Callable[[], tuple[_Finder, list[Ranking]]],
    call: Call,
    paces: Paces,
    timer: Timer,
) -> tuple[_Finder, list[Ranking], Embedded]:
    """What `begin` gives (it runs in a thread), and the queries' vectors by the embedder that its
    snapshot has, if they come in time: the one of the snapshot before is asked at once, and only
    if it is another one now (the index was switched), the new one after it."""
    embedder = await held_embedder(models, index.seen_embedder(), embedder, call)
    (finder, by_words), made = await both(
        _in_thread(begin),
        timer.wait("embed", embedded(models, embedder, queries, call, paces)),
    )
    held = finder.snapshot.embedder
    if made.info is not None and held.fingerprint != made.info.fingerprint:
        embedder = await held_embedder(models, held, embedder, call)
        check_embedder(index.name, held, embedder, await models.info(embedder, call=call))
        made = await timer.wait("embed", embedded(models, embedder, queries, call, paces))
    return finder, by_words, made


async def _reranked(
    index: EmbeddedIndex,
    models: Models,
    order: Sequence[Stage],
    queries: Sequence[str],
    lists: Sequence[list[Hit]],
    call: Call,
    paces: Paces,
) -> tuple[list[list[Hit]], tuple[str, ...]]:
    """Every query's hits in the reranker's order, side by side; each thing that was left out
    once."""

    def kept(chunks: Sequence[int], fingerprint: str) -> dict[int, bytes]:
        with index.reading() as db:
            return compressed.read(db, chunks, fingerprint)

    found = await together(
        *(
            cascade(models, order, query, hits, call, paces, kept)
            for query, hits in zip(queries, lists, strict=True)
        )
    )
    skipped = dict.fromkeys(what for _, each in found for what in each)
    return [hits for hits, _ in found], tuple(skipped)


def _scores(lists: Mapping[str, Ranking], best: Sequence[int]) -> dict[int, dict[str, float]]:
    """Scores by chunk id and stage, the stages in the order of `lists`, the ids in that of
    `best`."""
    scores: dict[int, dict[str, float]] = {chunk_id: {} for chunk_id in best}
    wanted = np.array(best, np.int64)[:, None]
    for stage, found in lists.items():
        rows, places = np.nonzero(wanted == found.ids)
        for row, score in zip(rows.tolist(), found.scores[places].tolist(), strict=True):
            scores[best[row]][stage] = score
    return scores


def _stages(lists: Mapping[str, Ranking], end: Sequence[Hit]) -> dict[str, tuple[int, ...]]:
    """Chunk ids by stage, best first; `ranked` and `rerank` only where they took place."""
    found = {
        name: tuple(listed.ids.tolist())
        for name, listed in lists.items()
        if len(listed.ids) or name != "ranked"
    }
    if any("rerank" in hit.scores for hit in end):
        found["rerank"] = tuple(hit.chunk_id for hit in end)
    return found


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_executor, function, *arguments)

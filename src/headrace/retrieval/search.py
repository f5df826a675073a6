"""From a query to hits: the whole of retrieval on one screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.engines import machine
from headrace.errors import BadRequest
from headrace.retrieval.analyze import references
from headrace.retrieval.base import Scored
from headrace.retrieval.collections import check_embedder
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.fuse import fuse, without_copies
from headrace.retrieval.hurry import embedded
from headrace.retrieval.rerank import rerank
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.serving.models import Models, both, together
from headrace.serving.paces import Paces
from headrace.types import USER, Call, Filter, Hit, SearchResult

T = TypeVar("T")
Vector: TypeAlias = npt.NDArray[np.float32]

SPARE = 8
"""Hits fetched beyond those asked for, in case some are deleted meanwhile or the same text."""

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
    batch. `call.then` names the models that come after the search.

    1. Lexical search and the queries' embedding start at once; dense search follows, if the
    vectors come in time (`retrieval.hurry`). 2. The lists are fused. 3. Texts are fetched after
    that, so what was deleted meanwhile is not among the hits. 4. A reranker, if any, scores the
    first `rerank_depth`, or what there is time for.

    Raises `BadRequest` for an empty query, `ConfigError` if the collection's vectors are of
    another embedder, `UnknownCollection` if it was deleted, and what `models` raises.
    """
    _refuse_empty(queries)
    paces = paces or Paces()
    timer = Timer()
    first = call if reranker is None else replace(call, then=(reranker, *call.then))
    depth = max(options.depth, k)

    (snapshot, by_words), (info, vectors, skipped) = await both(
        _in_thread(_by_words, index, queries, depth, where, timer),
        timer.wait("embed", embedded(models, embedder, queries, first, paces)),
    )
    if info is not None:
        check_embedder(index.name, snapshot.embedder, embedder, info)
    wanted = max(k, options.rerank_depth if reranker else 0)
    rows: Iterable[Vector | None] = [None] * len(queries) if vectors is None else vectors
    nears: list[list[Scored]] = []

    def rest(query: str, vector: Vector | None, words: list[Scored]) -> list[Hit]:
        find = partial(timer.call, "dense", snapshot.search_dense)
        near = [] if vector is None else find(vector, depth, where)
        scores = timer.call("fuse", _fused, near, words, query, options, wanted + SPARE)
        found = timer.call("fetch", index.get, scores, where)
        nears.append(near)
        return without_copies(found, wanted)

    lists = await _in_thread(lambda: list(map(rest, queries, rows, by_words)))
    if reranker and any(lists):
        work = _reranked(models, reranker, queries, lists, call, paces)
        lists, left_out = await timer.wait("rerank", work)
        skipped += left_out
    told = (snapshot.generation, timer.total(), skipped)
    found = [SearchResult(tuple(hits[:k]), *told) for hits in lists]
    return _traced(found, queries, nears, by_words, options, lists) if stages else found


def _refuse_empty(queries: Sequence[str]) -> None:
    if not all(query.strip() for query in queries):
        raise BadRequest("the query is empty", field="query")


def _by_words(
    index: EmbeddedIndex, queries: Sequence[str], depth: int, where: Filter, timer: Timer
) -> tuple[CollectionSnapshot, list[list[Scored]]]:
    snapshot = timer.call("snapshot", index.snapshot)
    find = partial(timer.call, "lexical", snapshot.search_lexical)
    return snapshot, [find(query, depth, where) for query in queries]


async def _reranked(
    models: Models,
    reranker: str,
    queries: Sequence[str],
    lists: Sequence[list[Hit]],
    call: Call,
    paces: Paces,
) -> tuple[list[list[Hit]], tuple[str, ...]]:
    """Every query's hits in the reranker's order, side by side; each thing that was left out
    once."""
    found = await together(
        *(
            rerank(models, reranker, query, hits, call, paces)
            for query, hits in zip(queries, lists, strict=True)
        )
    )
    skipped = dict.fromkeys(what for _, each in found for what in each)
    return [hits for hits, _ in found], tuple(skipped)


def _fused(
    near: Sequence[Scored],
    by_words: Sequence[Scored],
    query: str,
    options: RetrievalOptions,
    count: int,
) -> dict[int, dict[str, float]]:
    """The scores of the best `count` of both lists, best first."""
    if references(query):  # vectors hardly tell article 44 from article 45; words do
        options = options.model_copy(update={"dense_weight": min(options.dense_weight, 0.3)})
    best = fuse(near, by_words, options)[:count]
    return _scores({"dense": near, "lexical": by_words}, best)


def _traced(
    results: Sequence[SearchResult],
    queries: Sequence[str],
    nears: Sequence[Sequence[Scored]],
    by_words: Sequence[Sequence[Scored]],
    options: RetrievalOptions,
    lists: Sequence[Sequence[Hit]],
) -> list[SearchResult]:
    """The results with the chunk ids of every stage's whole list, best first."""
    traced = []
    for number, (query, near, words) in enumerate(zip(queries, nears, by_words, strict=True)):
        stages = {
            "dense": tuple(one.chunk_id for one in near),
            "lexical": tuple(one.chunk_id for one in words),
            "fused": tuple(_fused(near, words, query, options, len(near) + len(words))),
        }
        if any("rerank" in hit.scores for hit in lists[number]):
            stages["rerank"] = tuple(hit.chunk_id for hit in lists[number])
        traced.append(replace(results[number], stages=stages))
    return traced


def _scores(
    lists: Mapping[str, Sequence[Scored]], fused: Sequence[Scored]
) -> dict[int, dict[str, float]]:
    """Scores by chunk id and stage, in the order of `fused`, which is each one's last stage."""
    by_stage = {stage: dict(found) for stage, found in lists.items()}
    return {
        chunk_id: {
            **{stage: found[chunk_id] for stage, found in by_stage.items() if chunk_id in found},
            "fused": score,
        }
        for chunk_id, score in fused
    }


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    """A search takes two such steps, not one for each list: a change of threads costs as much as a
    search of a small collection."""
    return await asyncio.get_running_loop().run_in_executor(_executor, function, *arguments)

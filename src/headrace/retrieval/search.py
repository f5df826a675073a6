"""From a query to hits: the whole of retrieval on one screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.errors import BadRequest
from headrace.retrieval.analyze import references
from headrace.retrieval.base import Scored
from headrace.retrieval.collections import check_embedder
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.fuse import fuse, without_copies
from headrace.retrieval.rerank import rerank
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.serving.models import Models
from headrace.serving.paces import Paces
from headrace.types import USER, Call, Filter, Hit, SearchResult

T = TypeVar("T")

SPARE = 8
"""Hits fetched beyond those asked for, in case some are deleted meanwhile or the same text."""

_executor = ThreadPoolExecutor(max_workers=8, thread_name_prefix="headrace-search")


class Timer:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._start = time.perf_counter()

    def call(self, stage: str, function: Callable[..., T], *arguments: object) -> T:
        start = time.perf_counter()
        result = function(*arguments)
        self.ms[stage] = (time.perf_counter() - start) * 1e3
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
) -> SearchResult:
    """The best `k` hits for a query. `call.then` names the models that come after the search.

    1. Lexical search and the query's embedding start at once; dense search follows. 2. The lists
    are fused. 3. Texts are fetched after that, so what was deleted meanwhile is not among the hits.
    4. A reranker, if any, scores the first `rerank_depth`, or what there is time for.

    The steps in threads are two, not one each: a change of threads costs as much as a search of a
    small collection.

    Raises `BadRequest` for an empty query, `ConfigError` if the collection's vectors are of
    another embedder, `UnknownCollection` if it was deleted, and what `models` raises.
    """
    if not query.strip():
        raise BadRequest("the query is empty", field="query")
    info = await models.info(embedder)
    timer = Timer()
    first = call if reranker is None else replace(call, then=(reranker, *call.then))
    depth = max(options.depth, k)

    def lexical() -> tuple[CollectionSnapshot, list[Scored]]:
        snapshot = timer.call("snapshot", index.snapshot)
        check_embedder(index.name, snapshot.embedder, embedder, info)
        return snapshot, timer.call("lexical", snapshot.search_lexical, query, depth, where)

    try:
        async with asyncio.TaskGroup() as group:
            embedding = group.create_task(
                timer.wait("embed", models.embed(embedder, [query], "query", call=first))
            )
            words = group.create_task(_in_thread(lexical))
    except ExceptionGroup as failed:  # callers know the errors, not that two things ran at once
        raise failed.exceptions[0] from failed
    vector, (snapshot, by_words) = embedding.result()[0], words.result()
    wanted = max(k, options.rerank_depth if reranker else 0)

    def rest() -> list[Hit]:
        near = timer.call("dense", snapshot.search_dense, vector, depth, where)
        scores = timer.call("fuse", _fused, near, by_words, query, options, wanted + SPARE)
        found = timer.call("fetch", index.get, scores, where)
        return without_copies(found, wanted)

    hits = await _in_thread(rest)
    skipped: tuple[str, ...] = ()
    if reranker and hits:
        work = rerank(models, reranker, query, hits, call, paces or Paces())
        hits, skipped = await timer.wait("rerank", work)
    return SearchResult(tuple(hits[:k]), snapshot.generation, timer.total(), skipped)


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
    return await asyncio.get_running_loop().run_in_executor(_executor, function, *arguments)

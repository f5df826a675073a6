"""Answers given again: wraps `answer`, is not inside it.

An answer is kept for everything that shapes it: the state of the collection (the open index, its
generation, and what was fitted for it), the configuration's version, the caller's access set and
filter, the conversation, and every setting of the request. A caller with other rights, or after any
change of the documents, asks another question as far as the cache is concerned. The generation is
read from SQLite at each lookup, so it does not matter which process wrote.

What is given again is proved again: the hits are fetched anew under the caller's filter, and each
quote is compared with the stored document. Anything that is not as it was makes it a miss.

Who asks what is being answered at this moment, for all of the same, reads that answer while it is
made (`shared_runs`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from headrace.config.fields import size_bytes
from headrace.engines.base import Vectors
from headrace.pipeline.answer import REPEATED, answer
from headrace.pipeline.calibration import fitted
from headrace.pipeline.kept_answers import NAME, Kept, Key, State
from headrace.pipeline.plan import AnswerRequest, make_plan
from headrace.pipeline.sameness import same_question
from headrace.pipeline.services import Services
from headrace.retrieval.collections import EmbeddedIndex, held_embedder
from headrace.types import (
    USER,
    Cached,
    DoneEvent,
    Event,
    Filter,
    Hit,
    HitsEvent,
    QuoteEvent,
    StageEvent,
    Usage,
)

_decoder = msgspec.msgpack.Decoder(tuple[Event, ...])


class Found(NamedTuple):
    """An answer that holds now: its events, of which the last is `done`."""

    events: tuple[Event, ...]
    cached: Cached


async def cached(services: Services, request: AnswerRequest) -> AsyncGenerator[Event, None]:
    """The events of `answer`, or those of an answer that was given before or is being given, if the
    configuration and the request want that. Raises what `answer` raises."""
    off = services.config.cache.answers == "off"
    if off:
        services.kept.clear()
    if off or not request.cache or request.temperature > 0:
        made = answer(services, request)
    else:
        made = _Look(services, request).events()
    async with contextlib.aclosing(made) as events:
        async for event in events:
            yield event


def _again(found: Found) -> tuple[Event, ...]:
    *said, done = found.events
    assert isinstance(done, DoneEvent)
    ms = done.timings["total"] - found.cached.saved_ms
    return (
        StageEvent("cache", round(ms, 3), found.cached.kind),
        *said,
        _not_made(done, ms, found.cached),
    )


def _not_made(done: DoneEvent, ms: float, cached: Cached) -> DoneEvent:
    """The end of an answer for a caller for whom it was not made, and who waited `ms` for it."""
    timings = {"cache": round(ms, 3), "total": round(ms, 3)}
    return replace(done, usage=Usage(), timings=timings, cached=cached)


class _Look:
    """One request's look into the cache, and what it keeps there if it found nothing.

    1. The same question was answered before. 2. It is being answered: that run is shared. Else this
    request begins a run, for itself and for others: 3. The answer to a question with nearly the
    same vector, if the rules say that it asks the same. 4. An answer of its own."""

    def __init__(self, services: Services, request: AnswerRequest) -> None:
        """Raises what `make_plan` raises."""
        self._began = time.perf_counter()
        self._services = services
        self._options = services.config.cache
        self._request = request
        self._plan = make_plan(services.config, replace(request, call=USER))
        self._index: EmbeddedIndex | None = None
        self._state = State("", 0)
        self._scope = b""
        self._vector: Vectors | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        found = await asyncio.to_thread(self._exact)
        if found is not None:
            self._count(found.cached)
            for event in _again(found):
                yield event
            return
        key = Key(self._scope, self._plan.question)
        run, shared = self._services.runs.join(key, self._request.call, self._made)
        async with contextlib.aclosing(run.read()) as events:
            async for event in events:
                if shared and isinstance(event, DoneEvent) and event.cached is None:
                    ms = self._ms()
                    cached = Cached("shared", 1.0, 0.0, round(event.timings["total"] - ms, 3))
                    self._count(cached)
                    event = _not_made(event, ms, cached)
                yield event

    async def _made(self) -> AsyncGenerator[Sequence[Event], None]:
        """Steps 3 and 4: events, as many as are there at once."""
        found = None
        if self._options.answers == "semantic":
            self._vector = await self._embedded()
            found = await asyncio.to_thread(self._near, self._vector)
        self._count(found.cached if found else None)
        if found is not None:
            yield _again(found)
            return
        said: list[Event] = []
        async with contextlib.aclosing(answer(self._services, self._request)) as events:
            async for event in events:
                said.append(event)
                yield (event,)
        await self._keep_if_whole(said)
        self._services.kept.tell(self._services.metrics)

    async def _embedded(self) -> Vectors:
        """The vector of what is looked up, float32 [dimensions]."""
        models, call = self._services.models, self._request.call
        assert self._index is not None
        held = self._index.seen_embedder()
        embedder = await held_embedder(models, held, self._plan.embedder, call)
        vector: Vectors = (await models.embed(embedder, [self._plan.lookup], "query", call=call))[0]
        return vector

    def _ms(self) -> float:
        return (time.perf_counter() - self._began) * 1e3

    def _count(self, cached: Cached | None) -> None:
        metrics = self._services.metrics
        metrics.cache_lookups.labels(NAME, cached.kind if cached else "miss").inc()
        if cached is not None:
            metrics.cache_saved_seconds.labels(NAME).inc(max(cached.saved_ms, 0) / 1000)

    def _exact(self) -> Found | None:
        self._index = self._services.collections.open(self._request.collection)
        snapshot = self._index.snapshot()
        self._state = State(self._index.token, snapshot.generation, fitted(self._index.folder))
        self._services.kept.drop_others(self._request.collection, self._state)
        self._scope = scope(
            self._request,
            self._state,
            self._services.config_version,
            snapshot.embedder.fingerprint,
        )
        key = Key(self._scope, self._plan.question)
        kept = self._services.kept.exact(key, self._options.max_age_seconds)
        return None if kept is None else self._proved(key, kept, "exact", 1.0)

    def _near(self, vector: Vectors) -> Found | None:
        assert self._index is not None
        options = self._options
        for near in self._services.kept.near(
            self._scope, vector, options.similarity, options.max_age_seconds
        ):
            if same_question(self._plan.question, near.question, self._index.snapshot().used):
                key = Key(self._scope, near.question)
                return self._proved(key, near.kept, "semantic", near.similarity)
        return None

    def _proved(self, key: Key, kept: Kept, kind: str, similarity: float) -> Found | None:
        """`None` if anything is not as it was, and then it is not kept any longer."""
        assert self._index is not None
        events = _decoder.decode(kept.events)
        holds = kept.state == self._state and _holds(self._index, events, self._request.where)
        if not holds or self._index.snapshot().generation != self._state.generation:
            self._services.kept.drop(key)
            return None
        cached = Cached(
            kind="exact" if kind == "exact" else "semantic",
            similarity=round(min(similarity, 1.0), 4),
            age_seconds=round(kept.age, 3),
            saved_ms=round(kept.ms - self._ms(), 3),
        )
        return Found(events, cached)

    async def _keep_if_whole(self, said: list[Event]) -> None:
        """Keep a whole answer of the state that was looked at. What a deadline cut, or left out, is
        none, and neither is one during which the documents changed."""
        done = said[-1] if said else None
        if not isinstance(done, DoneEvent) or done.finish_reason == "cancelled":
            return
        if set(done.skipped) - {*self._plan.skipped, REPEATED}:
            return
        await asyncio.to_thread(self._keep, said, done)

    def _keep(self, said: list[Event], done: DoneEvent) -> None:
        assert self._index is not None
        now = self._index.snapshot().generation
        if not done.generation == now == self._state.generation:
            return
        kept = Kept(
            collection=self._request.collection,
            state=self._state,
            events=msgspec.msgpack.encode([e for e in said if not isinstance(e, StageEvent)]),
            vector=self._vector,
            ms=done.timings["total"],
        )
        key = Key(self._scope, self._plan.question)
        self._services.kept.keep(key, kept, size_bytes(self._options.answers_size))


def scope(request: AnswerRequest, state: State, config_version: str, fingerprint: str) -> bytes:
    """Stands for all that shapes an answer but its question: every field of the request, whatever
    it is, but for whom the models work. Filters that allow the same are the same."""
    where = request.where
    access = frozenset({"*"}) if "*" in where.access else where.access
    metadata = {key: tuple(sorted(set(values))) for key, values in where.metadata.items()}
    same = replace(
        request,
        question="",
        call=USER,
        where=Filter(access, metadata, tuple(sorted(set(where.documents)))),
    )
    parts = (state, config_version, fingerprint, same)
    data = msgspec.msgpack.encode(parts, order="deterministic")
    return hashlib.blake2b(data, digest_size=16).digest()


def _hits(events: tuple[Event, ...]) -> dict[int, Hit]:
    """All hits, by chunk id."""
    found = (event.hits for event in events if isinstance(event, HitsEvent))
    return {hit.chunk_id: hit for hits in found for hit in hits}


def _holds(index: EmbeddedIndex, events: tuple[Event, ...], where: Filter) -> bool:
    """Whether `where` allows all hits and quotes, and the documents say what they said. Blocks."""
    hits = _hits(events)
    now = {hit.chunk_id: hit for hit in index.get({key: {} for key in hits}, where)}
    if now.keys() != hits.keys() or any(
        (now[key].document_id, now[key].span, now[key].text)
        != (hit.document_id, hit.span, hit.text)
        for key, hit in hits.items()
    ):
        return False
    quotes = [event.quote for event in events if isinstance(event, QuoteEvent)]
    if not {quote.document_id for quote in quotes} <= {hit.document_id for hit in now.values()}:
        return False  # of a document that `where` was not asked about
    for document_id in {quote.document_id for quote in quotes}:
        stored = index.text(document_id)
        mine = [quote for quote in quotes if quote.document_id == document_id]
        if stored is None or any(quote.span.of(stored) != quote.text for quote in mine):
            return False
    return True

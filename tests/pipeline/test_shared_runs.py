"""One run for all who ask the same: nobody is worse off for sharing it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cache import ask, done, fill, put, request, said, town, with_cache

from headrace.config.caching import CacheOptions
from headrace.config.options import Config
from headrace.engines.base import Vectors
from headrace.errors import ModelFailed, Overloaded
from headrace.pipeline.cache import cached
from headrace.pipeline.kept_answers import Key
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.pipeline.shared_runs import SharedRun, SharedRuns
from headrace.serving.models import WrappedModels
from headrace.types import (
    ALL_ACCESS,
    BULK,
    USER,
    Call,
    Delta,
    DeltaEvent,
    ErrorEvent,
    Event,
    Filter,
    HitsEvent,
)

SOON = 60.0
"""More than any of this takes."""


class Held(WrappedModels):
    """Answers no query before `open`; remembers how many came, and how many were given up. An
    `error` is raised in place of the vector, or of a generator's second delta."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.open = asyncio.Event()
        self.asked = 0
        self.cancelled = 0
        self.error: Exception | None = None
        self.late_error: Exception | None = None

    async def embed(self, model: str, texts: Sequence[str], kind: Any, **more: Any) -> Vectors:
        if kind == "query":
            self.asked += 1
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if self.error is not None:
                raise self.error
        return await super().embed(model, texts, kind, **more)

    async def generate(self, *arguments: Any, **more: Any) -> AsyncGenerator[Delta, None]:
        if self.late_error is not None:
            yield Delta("Dogs of district 1 must be kept on a leash of 2 metres [1]. ")
            raise self.late_error
        async with aclosing(super().generate(*arguments, **more)) as deltas:
            async for delta in deltas:
                yield delta


@pytest.fixture
async def services(fast: Config) -> AsyncIterator[Services]:
    async with town(fast) as made:
        await fill(made)
        yield replace(with_cache(made), models=Held(made.models))


def held(services: Services) -> Held:
    assert isinstance(services.models, Held)
    return services.models


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)


async def waiting(services: Services, asked: AnswerRequest) -> asyncio.Task[list[Event]]:
    """One who asks, and by now waits for a run."""
    before = readers(services)
    task = asyncio.create_task(ask(services, asked))
    await until(lambda: readers(services) > before)
    return task


def readers(services: Services) -> int:
    return sum(run._readers for runs in services.runs._runs.values() for run in runs)


def counted(services: Services, result: str) -> float | None:
    labels = {"cache": "answers", "result": result}
    return services.metrics.registry.get_sample_value("headrace_cache_lookups_total", labels)


def soon(seconds: float) -> Call:
    return Call(deadline=time.monotonic() + seconds)


async def test_many_who_ask_at_once_share_one_run(services: Services) -> None:
    tasks = [await waiting(services, request()) for _ in range(5)]
    assert len(services.runs) == 1
    held(services).open.set()
    first, *others = [await task for task in tasks]
    assert held(services).asked == 2, "one search and one choice of quotations"
    assert done(first).cached is None
    for other in others:
        assert other[:-1] == first[:-1]
        assert said(other) == said(first)
        told = done(other).cached
        assert told is not None
        assert (told.kind, told.similarity, told.age_seconds) == ("shared", 1.0, 0.0)
        assert done(other).usage.total_tokens == 0
        assert done(other).timings.keys() == {"cache", "total"}
    assert (counted(services, "miss"), counted(services, "shared")) == (1, 4)
    assert len(services.runs) == 0
    after = done(await ask(services, request())).cached
    assert after is not None
    assert after.kind == "exact"


async def test_where_nothing_is_cached_nothing_is_shared(services: Services) -> None:
    config = services.config.model_copy(update={"cache": CacheOptions()})
    plain = replace(services, config=config)
    held(services).open.set()
    found = await asyncio.gather(
        ask(plain, request()), ask(plain, request()), ask(services, request(cache=False))
    )
    assert [done(events).cached for events in found] == [None] * 3
    assert held(services).asked == 6


async def test_the_first_one_may_go_away(services: Services) -> None:
    first = await waiting(services, request())
    second = await waiting(services, request())
    third = await waiting(services, request())
    for gone in (first, third):
        gone.cancel()
        await asyncio.wait([gone])
    held(services).open.set()
    events = await second
    assert held(services).cancelled == 0
    assert any(isinstance(event, DeltaEvent) for event in events)
    assert done(await ask(services, request())).cached is not None, "it was kept all the same"


async def test_a_run_that_nobody_waits_for_is_cancelled(services: Services) -> None:
    tasks = [await waiting(services, request()) for _ in range(3)]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert held(services).cancelled == 1
    assert len(services.runs) == 0
    held(services).open.set()
    assert done(await ask(services, request())).cached is None


async def test_an_error_reaches_all_as_it_was(services: Services) -> None:
    held(services).error = Overloaded("full", retry_after=7.0)
    tasks = [await waiting(services, request()) for _ in range(3)]
    held(services).open.set()
    for task in tasks:
        with pytest.raises(Overloaded, match="full") as raised:
            await task
        assert raised.value.retry_after == 7.0
    held(services).error = None
    assert done(await ask(services, request())).cached is None


async def test_an_error_after_the_first_event_ends_every_stream(services: Services) -> None:
    held(services).late_error = ModelFailed("it broke")
    asked = AnswerRequest("town", request().question, Filter(access=ALL_ACCESS))
    tasks = [await waiting(services, asked) for _ in range(3)]
    held(services).open.set()
    for events in [await task for task in tasks]:
        assert any(isinstance(event, HitsEvent) for event in events)
        assert events[-1] == ErrorEvent(ModelFailed.code, "it broke")
    assert len(services.kept) == 0


async def test_another_access_set_has_a_run_of_its_own(services: Services) -> None:
    owner = await waiting(services, request())
    reader = await waiting(services, request(where=Filter(frozenset({"public"}))))
    assert len(services.runs) == 2
    held(services).open.set()
    assert done(await owner).cached is None
    events = await reader
    assert done(events).cached is None
    hits = [hit for event in events if isinstance(event, HitsEvent) for hit in event.hits]
    assert hits
    assert all(hit.source.endswith("rules.md") for hit in hits)


async def test_what_was_asked_after_a_change_is_answered_anew(services: Services) -> None:
    before = await waiting(services, request())
    await put(services, "more.md", "# Rule 3\n\nDogs of district 3 need no leash.\n")
    after = await waiting(services, request())
    assert len(services.runs) == 2
    held(services).open.set()
    await before
    assert done(await after).cached is None


async def test_who_has_less_time_does_not_wait(services: Services) -> None:
    patient = await waiting(services, request(call=soon(SOON)))
    hurried = await ask(services, request(call=soon(0.5)))
    assert any("by words alone" in reason for reason in done(hurried).skipped)
    assert done(hurried).cached is None
    assert not patient.done()
    held(services).open.set()
    assert not any("by words alone" in reason for reason in done(await patient).skipped)


async def test_who_has_more_time_is_not_given_a_hurried_answer(services: Services) -> None:
    hurried = await waiting(services, request(call=soon(1.0)))
    patient = await waiting(services, request(call=soon(SOON)))
    assert any("by words alone" in reason for reason in done(await hurried).skipped)
    held(services).open.set()
    found = done(await patient)
    assert found.cached is None
    assert not any("by words alone" in reason for reason in found.skipped)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (lambda: USER, lambda: USER, True),
        (lambda: soon(50), lambda: soon(51), True),  # the same `deadline_ms`, a little later
        (lambda: soon(50), lambda: soon(49), False),
        (lambda: soon(50), lambda: USER, False),
        (lambda: USER, lambda: soon(50), False),
        (lambda: USER, lambda: BULK, True),
        (lambda: BULK, lambda: USER, False),
        (lambda: BULK, lambda: BULK, True),
    ],
)
async def test_for_whom_a_run_serves(
    first: Callable[[], Call], second: Callable[[], Call], shared: bool
) -> None:
    async def nothing() -> AsyncGenerator[Sequence[Event], None]:
        await asyncio.sleep(SOON)
        yield ()

    runs, key = SharedRuns(), Key(b"s", "q")
    made, _ = runs.join(key, first(), nothing)
    found, joined = runs.join(key, second(), nothing)
    assert (found is made, joined) == (shared, shared)
    for run in {made, found}:
        run.task.cancel()
        await asyncio.wait([run.task])
    assert len(runs) == 0


async def test_who_comes_late_gets_the_whole_stream(services: Services) -> None:
    held(services).open.set()
    async with aclosing(cached(services, request())) as early:
        first = [await anext(early), await anext(early)]
        late = asyncio.create_task(ask(services, request()))
        await until(lambda: readers(services) == 2)
        second = await late  # who reads on is not held up by one who does not
        first += [event async for event in early]
    assert first[:-1] == second[:-1]
    told = done(second).cached
    assert told is not None
    assert told.kind == "shared"


async def test_a_semantic_hit_is_found_once_for_all(services: Services) -> None:
    near = with_cache(services, answers="semantic", similarity=0.5)
    held(services).open.set()
    await ask(near, request("Must dogs be kept on a leash?"))
    held(services).open.clear()
    before = held(services).asked
    other = "Do dogs have to be kept on a leash, please?"
    tasks = [await waiting(near, request(other)) for _ in range(3)]
    held(services).open.set()
    for task in tasks:
        told = done(await task).cached
        assert told is not None
        assert told.kind == "semantic"
    assert held(services).asked == before + 1


# Whatever readers do ------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, length=st.integers(0, 6), fails=st.booleans())
def test_each_reader_gets_all_from_the_first_on(
    steps: list[tuple[str, int]], length: int, fails: bool
) -> None:
    asyncio.run(_play(steps, length, fails))


async def _play(steps: list[tuple[str, int]], length: int, fails: bool) -> None:
    made = 0
    closed = False

    async def events() -> AsyncGenerator[Sequence[Event], None]:
        nonlocal made, closed
        try:
            for number in range(length):
                await asyncio.sleep(0)
                made += 1
                yield (DeltaEvent(str(number)),)
            if fails:
                raise ModelFailed("at its end")
        finally:
            closed = True

    run = SharedRun(events(), USER)
    present: list[tuple[AsyncGenerator[Event, None], list[Event]]] = []
    furthest = 0
    for what, which in [("join", 0), *steps]:
        if what == "join" and run.serves(USER):
            stream = run.read()
            present.append((stream, []))
            which = len(present) - 1
        if which >= len(present):
            continue
        stream, got = present[which]
        if what == "leave" and len(present) > 1:
            await stream.aclose()
            present.pop(which)
        elif what != "leave":
            await _next(stream, got, length, fails)
            furthest = max(furthest, len(got))
            assert made <= furthest + 1, "it runs ahead of nobody"
    for stream, got in present:
        while await _next(stream, got, length, fails):
            pass
        assert got == [DeltaEvent(str(number)) for number in range(length)]
        await stream.aclose()
    assert closed
    assert run.task.done()


async def _next(
    stream: AsyncGenerator[Event, None], got: list[Event], length: int, fails: bool
) -> bool:
    """Whether there was one more event."""
    try:
        got.append(await anext(stream))
    except StopAsyncIteration:
        assert len(got) == length
        return False
    except ModelFailed:
        assert fails
        assert len(got) == length
        return False
    assert got == [DeltaEvent(str(number)) for number in range(len(got))]
    return True

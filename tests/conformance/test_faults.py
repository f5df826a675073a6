"""Every layer under every fault: each request ends in one way, the next one succeeds, and nothing
is left. In brackets: what users of other servers complain of, which must not happen here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator

import numpy as np
import psutil
import pytest
import pytest_asyncio
from tests.conformance.harness import (
    BOUND,
    CANCELLED,
    RESULT,
    leaving_nothing,
    outcome,
    outcomes,
    until,
)
from tests.conformance.subjects import (
    CRASH,
    FAULTS,
    HANG,
    LAYERS,
    LONG,
    NARROW,
    POISON,
    SLOW,
    TALK,
    VECTORS,
    OfAnswers,
    Subject,
    configured,
    models,
)

from headrace.serving import roster
from headrace.types import Call, Role

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

FAILED, LATE, FULL = "model_failed", "deadline_exceeded", "overloaded"
ADMITTING = [name for name in LAYERS if name != "groups"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=LAYERS)
async def layer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Subject]:
    config = configured(tmp_path_factory.mktemp(request.param))
    async with leaving_nothing(), LAYERS[request.param](config) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def subject(layer: Subject) -> AsyncIterator[Subject]:
    """The layer at rest with its workers loaded, before and after: after every fault the next
    request succeeds, and nothing is held that was not held before."""
    await at_rest(layer)
    async with leaving_nothing(files=False):
        yield layer
        await at_rest(layer)
        for model in (NARROW, SLOW):
            await layer.leave(model)


_times = itertools.count(2)


def _new(text: str) -> str:
    """The same words in a text that no cache of vectors has."""
    return text.replace(" ", " " * next(_times), 1)


async def at_rest(subject: Subject) -> None:
    text = _new("dogs at the market")  # so that both models are asked
    assert await outcomes([subject.ask(text), spoken(subject, text)]) == [RESULT, RESULT]


async def spoken(subject: Subject, text: str, *, call: Call = Call()) -> str:  # noqa: B008
    async with contextlib.aclosing(subject.stream(text, call=call)) as pieces:
        return "".join([piece async for piece in pieces])


def _result_or(subject: Subject, code: str) -> set[str]:
    return {RESULT, code} if isinstance(subject, OfAnswers) else {RESULT}


class Listener:
    """A stream that somebody reads; `begun` when it has said something."""

    def __init__(self, subject: Subject, text: str = LONG) -> None:
        self._stream = subject.stream(text)
        self.begun = asyncio.Event()
        self.heard: list[str] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with contextlib.aclosing(self._stream) as pieces:
            async for piece in pieces:
                self.heard.append(piece)
                self.begun.set()

    async def begins(self) -> None:
        begun = asyncio.ensure_future(self.begun.wait())
        async with asyncio.timeout(BOUND):
            await asyncio.wait((begun, self.task), return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()


async def test_a_poisoned_text_fails_alone(subject: Subject) -> None:
    """Its neighbours in the batch get their results, and no worker ends (infinity#544: hangs after
    out of memory)."""
    before = subject.workers(VECTORS)
    texts = [f"text {n}" for n in range(9)]
    texts[4] = f"the {POISON} of it"
    found = await outcomes(subject.ask(text) for text in texts)
    assert found == [FAILED if POISON in text else RESULT for text in texts]
    assert subject.workers(VECTORS) == before


async def test_a_poisoned_prompt_fails_alone(subject: Subject) -> None:
    other = Listener(subject, "word " * 30)
    assert await outcome(spoken(subject, POISON)) == FAILED
    assert await outcome(other.task) == RESULT


async def test_a_text_that_kills_its_worker_is_not_tried_again(subject: Subject) -> None:
    (before,) = subject.workers(VECTORS)
    assert await outcome(subject.ask(f"{CRASH} it goes")) == FAILED
    assert await outcome(subject.ask("next")) == RESULT
    (after,) = subject.workers(VECTORS)
    assert after != before


async def test_a_text_that_never_ends_is_ended(subject: Subject) -> None:
    """vllm#39863: engine dead but health OK. Those who waited behind it get a result of the next
    worker, or are told."""
    works = [subject.ask(f"{HANG} here"), *(subject.ask(f"text {n}") for n in range(6))]
    found = await outcomes(works)
    assert found[0] == FAILED
    assert set(found[1:]) <= {RESULT, FAILED}


async def test_a_deadline_ends_one_request_and_not_its_neighbours(subject: Subject) -> None:
    late = Call(deadline=time.monotonic() + 0.3)
    hung = asyncio.create_task(outcome(spoken(subject, HANG, call=late)))
    # A question's neighbour may wait in the embedder that hangs over the first, and end with it.
    assert await outcome(spoken(subject, _new("word " * 10))) in _result_or(subject, FAILED)
    # The pipeline has an answer made of quotations for who has no time left.
    assert await hung in (LATE, RESULT, FAILED)
    if isinstance(subject, OfAnswers):
        # The embedder may still hang over a text that nobody waits for any more: whoever is the
        # next in it is told, and ends it.
        assert await outcome(subject.ask(_new("who comes next"))) in (RESULT, FAILED)


async def test_a_worker_killed_mid_stream(subject: Subject) -> None:
    """Every stream of it is told, none hangs, none ends as if it were whole."""
    streams = [Listener(subject) for _ in range(3)]
    for stream in streams:
        await stream.begins()
    os.kill(subject.workers(TALK)[0], signal.SIGKILL)
    found = await outcomes(stream.task for stream in streams)
    assert set(found) <= {FAILED, RESULT}
    for stream, end in zip(streams, found, strict=True):
        assert end == FAILED or "done" in stream.heard, "cut off, and nobody said so"


async def test_a_worker_that_stops_answering(subject: Subject) -> None:
    """A stopped process holds its socket open and says nothing: only its silence tells."""
    stream = Listener(subject)
    await stream.begins()
    workers = [psutil.Process(subject.workers(model)[0]) for model in (TALK, VECTORS)]
    for worker in workers:
        worker.suspend()
    found = await outcomes([stream.task, subject.ask("while it is stopped")])
    assert set(found) <= {FAILED, RESULT}
    assert found[1] in (FAILED, RESULT)
    await until(lambda: not workers[1].is_running(), "the stopped worker ended")


async def test_clients_gone_before_the_first_byte(subject: Subject) -> None:
    """litellm#30244, LitServe#48: a disconnect cancels, also where nothing was streamed yet."""
    works = [spoken(subject, HANG), subject.ask("x"), spoken(subject, LONG)]
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert set(await outcomes(tasks)) <= {CANCELLED, RESULT}
    await engine_stopped(subject)


async def test_a_client_gone_mid_stream(subject: Subject) -> None:
    """The engine stops, as seen by a park, which waits for what it still computes: the stream
    alone would take minutes (litellm#37140, ollama: generation goes on for nobody)."""
    stream = Listener(subject)
    await stream.begins()
    stream.task.cancel()
    assert await outcome(stream.task) in (CANCELLED, RESULT)
    await engine_stopped(subject)


async def engine_stopped(subject: Subject) -> None:
    async with asyncio.timeout(BOUND):
        await subject.park(TALK)


async def test_a_client_gone_while_its_model_is_loaded(subject: Subject) -> None:
    task = asyncio.create_task(subject.ask("x", model=SLOW))
    await asyncio.sleep(0.3)
    task.cancel()
    assert await outcome(task) == CANCELLED
    assert await outcome(subject.ask("y", model=SLOW)) == RESULT


async def test_a_deadline_passes_in_the_queue(subject: Subject) -> None:
    """The one who waited too long is told in time; those before it are not disturbed."""
    assert await outcome(subject.ask("loaded", model=NARROW)) == RESULT
    first = asyncio.create_task(outcome(subject.ask("first", model=NARROW)))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    late = Call(deadline=began + 0.1)
    assert await outcome(subject.ask("second", model=NARROW, call=late)) == LATE
    assert time.monotonic() - began < 10
    assert await first == RESULT


@pytest.mark.parametrize("layer", ADMITTING, indirect=True)
async def test_a_full_queue_refuses_at_once_single_and_many_alike(subject: Subject) -> None:
    """ollama#7758, TEI#662: the limit limits, and a batch is one request like any other."""
    assert await outcome(subject.ask("loaded", model=NARROW)) == RESULT
    admitted = [asyncio.create_task(outcome(subject.ask(t, model=NARROW))) for t in "ab"]
    await asyncio.sleep(0.2)
    refused = await outcomes(
        [subject.ask("one", model=NARROW), subject.ask("one", "two", "three", model=NARROW)]
    )
    assert not any(task.done() for task in admitted), "refused at once, not after the others"
    assert refused == [FULL, FULL]
    assert await asyncio.gather(*admitted) == [RESULT, RESULT]


@pytest.mark.parametrize("layer", ADMITTING, indirect=True)
async def test_a_changed_configuration_reaches_the_next_request_and_no_earlier_one(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream under way ends whole on the model of its start."""
    monkeypatch.setattr(roster, "LEAVING_SECONDS", 0.5)
    text = "word " * 50
    stream = Listener(subject, text)
    await stream.begins()
    (before,) = subject.workers(TALK)
    try:
        quick = models(Role.GENERATOR, f"delay=0,{FAULTS}", context=20_000)
        await subject.configure(configured(subject.folder, talk=quick))
        assert await outcome(spoken(subject, "next")) == RESULT
        assert subject.workers(TALK) != (before,)
        assert await outcome(stream.task) == RESULT
    finally:
        await subject.configure(configured(subject.folder))
    assert stream.heard[-1] == "done" or "".join(stream.heard).split() == text.split()
    await until(lambda: not psutil.pid_exists(before), "the worker of the old model ended")


async def test_batched_and_single_give_the_same(subject: Subject) -> None:
    """ollama#6262: embeddings computed side by side were corrupted."""
    texts = [f"text number {n} " * (1 + n % 7) for n in range(24)]
    together = await asyncio.gather(*(subject.ask(text) for text in texts))
    for text, found in zip(texts, together, strict=True):
        alone = await subject.ask(text)
        if isinstance(alone, np.ndarray):
            np.testing.assert_allclose(alone, found, atol=1e-6)
        else:
            assert [_hits(one) for one in alone] == [_hits(one) for one in found]


def _hits(found: dict[str, object]) -> object:
    return found["hits"]

"""A real worker process with the echo engine: replies, streams and their credit, moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import psutil
import pytest
from tests.serving.workers import PATIENCE, children, spec, until

from headrace.engines import machine
from headrace.engines.base import pairs
from headrace.errors import ConfigError, ModelFailed, PromptTooLong
from headrace.serving import wire
from headrace.serving.client import WorkerClient
from headrace.types import GenerateParams, Lane, Message


@contextlib.asynccontextmanager
async def started(source: str = "", **options: object) -> AsyncIterator[WorkerClient]:
    client = await WorkerClient.start(spec(source, **options))
    try:
        yield client
    finally:
        await client.close()


def talk(text: str) -> tuple[list[Message], GenerateParams]:
    return [Message("user", text)], GenerateParams(max_tokens=4000)


async def said(client: WorkerClient, text: str) -> str:
    return "".join([delta.text async for delta in client.stream(*talk(text))])


async def test_every_verb_and_streams_side_by_side() -> None:
    async with started() as client:
        vectors = await client.embed(["a wheel", "a mill"], "query", Lane.INTERACTIVE)
        assert vectors.shape == (2, 64)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
        assert (await client.score(pairs("wheel", ["wheel", "mill"]), Lane.BULK)).argmax() == 0
        assert await client.count(["one two", ""]) == [2, 0]
        texts = [f"word{n} and some more words" for n in range(8)]
        assert await asyncio.gather(*(said(client, text) for text in texts)) == texts


async def test_errors_keep_their_type_and_hurt_no_other() -> None:
    async with started("poison=bane", context=300) as client:
        with pytest.raises(PromptTooLong):
            await said(client, "word " * 400)
        with pytest.raises(ModelFailed, match=r"not enough memory .* holds \d+ MiB"):
            await client.embed(["bane"], "query", Lane.INTERACTIVE)
        with pytest.raises(ModelFailed, match="not enough memory"):
            await said(client, "bane")
        assert await said(client, "wheel") == "wheel"


async def test_a_stream_is_a_window_ahead_of_its_reader_at_most() -> None:
    async with started() as client:
        text = " ".join(str(number) for number in range(1000))
        stream = client.stream(*talk(text))
        first = await anext(stream)
        assert await said(client, "another") == "another"
        waiting = next(iter(client._pending.values()))
        await until(lambda: waiting.since is None)  # the worker has used its window up
        assert len(waiting._ready) == wire.WINDOW - 1
        rest = [delta.text async for delta in stream]
        assert first.text + "".join(rest) == text
        assert not client._pending


async def test_a_slow_reader_is_no_hang() -> None:
    async with started(timeout_seconds=0.4) as client:
        stream = client.stream(*talk("word " * 200))
        await anext(stream)
        waiting = next(iter(client._pending.values()))
        await until(lambda: waiting.since is None)
        await asyncio.sleep(1.0)  # longer than the model may be silent
        assert client.alive
        assert len([delta async for delta in stream]) == 200


async def test_closing_a_stream_stops_it_in_the_worker() -> None:
    async with started("delay=0.02") as client:
        stream = client.stream(*talk("word " * 3000))
        await anext(stream)
        await stream.aclose()
        await client.park()  # waits for what is running: a minute, if it still ran
        assert await client.resume("cpu") == client.info


async def test_a_cancelled_call_that_waits_is_not_computed() -> None:
    async with started("delay=0.3") as client:
        first = asyncio.create_task(client.embed(["x"], "query", Lane.INTERACTIVE))
        others = [asyncio.create_task(client.embed(["x"], "query", Lane.BULK)) for _ in range(1000)]
        await asyncio.sleep(0)
        for task in others:
            task.cancel()
        await first
        await asyncio.wait_for(client.embed(["x"], "query", Lane.BULK), PATIENCE)


async def test_interactive_work_goes_first_and_counts_wait_for_none() -> None:
    async with started("delay=0.2") as client:
        done: list[str] = []

        async def note(name: str, lane: Lane) -> None:
            await client.embed(["x"], "query", lane)
            done.append(name)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(note("first", Lane.BULK))
            tasks.create_task(note("bulk", Lane.BULK))
            tasks.create_task(note("query", Lane.INTERACTIVE))
            await asyncio.sleep(0)
            await client.count(["one"])
            assert done == []
        assert done.index("query") < done.index("bulk")


async def test_parking_gives_memory_back_and_resuming_takes_it_again() -> None:
    async with started("memory=100") as client:
        before = client.memory()
        assert before.held["host"] > 100 << 20
        assert before.peak["host"] >= before.held["host"]
        await client.park()
        parked = client.memory()
        assert parked.held["host"] < before.held["host"] - (90 << 20)
        with pytest.raises(ModelFailed, match="not on its seat"):
            await client.embed(["x"], "query", Lane.INTERACTIVE)
        pid = client.pid
        await client.resume("cpu")
        assert client.pid == pid
        assert client.memory().held["host"] > 100 << 20
        assert (await client.embed(["x"], "query", Lane.INTERACTIVE)).shape == (1, 64)


@pytest.mark.skipif(not machine.reset_peak(psutil.Process().pid), reason="not permitted here")
async def test_the_peak_is_that_of_the_last_move() -> None:
    async with started("memory=100") as client:
        await client.park()
        await client.park()
        assert client.memory().peak["host"] < 90 << 20


async def test_a_load_that_does_not_fit_into_memory() -> None:
    with pytest.raises(ModelFailed, match="not enough memory to load the model"):
        await WorkerClient.start(spec("memory=100000000"))


async def test_a_model_that_cannot_be_loaded_says_why_and_leaves_no_process() -> None:
    before = children()
    with pytest.raises(ConfigError, match="nonsense"):
        await WorkerClient.start(spec("nonsense"))
    assert children() == before


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    before = children()
    starting = asyncio.create_task(WorkerClient.start(spec("load=60")))
    await until(lambda: children() > before)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(starting), PATIENCE)
    assert children() == before


@pytest.mark.slow
async def test_cores_and_niceness() -> None:
    core = min(psutil.Process().cpu_affinity())
    client = await WorkerClient.start(spec(), cores=str(core), nice=19)
    try:
        worker = psutil.Process(client.pid)
        for thread in worker.threads():
            assert psutil.Process(thread.id).cpu_affinity() == [core]
        assert worker.nice() == 19
    finally:
        await client.close()
    with pytest.raises(ConfigError, match=r"cores: 9000.* not there"):
        await WorkerClient.start(spec(), cores="9000")

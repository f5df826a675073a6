"""Places for streams: their number, their order, and that none is lost."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from headrace.engines.base import ModelInfo
from headrace.errors import DeadlineExceeded, ModelFailed
from headrace.serving.client import WorkerClient
from headrace.serving.replica import Replica
from headrace.serving.slots import Slots
from headrace.types import BULK, USER, Call, Role


class Place:
    """What slots look at of a worker."""

    def __init__(self, slots: int) -> None:
        self.info = ModelInfo("talk", Role.GENERATOR, "echo", slots=slots)
        self.alive = True


class Streams:
    """Streams that last until the test ends them."""

    def __init__(self, *slots: int) -> None:
        self.replicas = [
            Replica(cast(WorkerClient, Place(count)), n) for n, count in enumerate(slots)
        ]
        self.slots = Slots("talk", self.replicas)
        self.running: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    def start(self, name: str, call: Call = USER) -> asyncio.Task[int]:
        self.ends[name] = asyncio.Event()

        async def stream() -> int:
            async with self.slots.place(call) as replica:
                self.running.append(name)
                try:
                    await self.ends[name].wait()
                finally:
                    self.running.remove(name)
                return replica.number

        return asyncio.create_task(stream())

    async def settle(self) -> list[str]:
        for _ in range(20):
            await asyncio.sleep(0)
        return self.running

    async def end(self, name: str) -> list[str]:
        self.ends[name].set()
        return await self.settle()


async def test_people_overtake_bulk_and_every_place_is_used_again() -> None:
    streams = Streams(1, 1)
    tasks = [streams.start(name) for name in "ab"]
    tasks += [streams.start("bulk", BULK), streams.start("c"), streams.start("d")]
    assert await streams.settle() == ["a", "b"]
    assert await streams.end("a") == ["b", "c"]
    assert await streams.end("b") == ["c", "d"]
    assert streams.slots.backlog_seconds > 0
    assert await streams.end("c") == ["d", "bulk"]
    for name in ("d", "bulk"):
        await streams.end(name)
    await asyncio.gather(*tasks)
    assert [replica.streams for replica in streams.replicas] == [0, 0]
    assert streams.slots.backlog_seconds == 0


async def test_no_bound_means_no_wait() -> None:
    streams = Streams(0)
    tasks = [streams.start(f"s{n}") for n in range(30)]
    assert len(await streams.settle()) == 30
    for name in list(streams.ends):
        streams.ends[name].set()
    await asyncio.gather(*tasks)
    assert streams.replicas[0].streams == 0


@pytest.mark.parametrize("moment", ["waiting", "at the moment when its place comes", "running"])
async def test_a_caller_who_leaves_gives_back_his_place(moment: str) -> None:
    streams = Streams(1)
    first, second = streams.start("first"), streams.start("second")
    await streams.settle()
    if moment == "waiting":
        second.cancel()
        await streams.settle()
    streams.ends["first"].set()
    if moment == "running":
        await streams.settle()
        second.cancel()
    elif moment != "waiting":
        while "first" in streams.running:  # noqa: ASYNC110 - turn by turn, to be there in time
            await asyncio.sleep(0)
        assert streams.running == []  # its place is handed over, and the second has not run since
        second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    third = streams.start("third")
    assert await streams.settle() == ["third"]
    await streams.end("third")
    await asyncio.gather(first, third)
    assert streams.replicas[0].streams == 0


async def test_a_deadline_ends_the_wait_and_says_how_many_were_ahead() -> None:
    streams = Streams(1)
    first, second = streams.start("first"), streams.start("second")
    late = streams.start("late", Call(deadline=time.monotonic() + 0.02))
    with pytest.raises(DeadlineExceeded, match="1 were ahead"):
        await late
    for name in ("first", "second"):
        await streams.end(name)
    await asyncio.gather(first, second)


async def test_when_no_replica_is_left_those_who_wait_are_told() -> None:
    streams = Streams(1)
    first, second = streams.start("first"), streams.start("second")
    await streams.settle()
    streams.slots.fail(ModelFailed("it died"))
    with pytest.raises(ModelFailed, match="it died") as caught:
        await second
    assert caught.value.unsent
    await streams.end("first")
    await first

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from starlette.types import Message

from headrace.errors import HeadraceError, ModelFailed
from headrace.http.sse import HEARTBEAT, EventStream, event


def failed(error: HeadraceError) -> bytes:
    return event(error.code.encode(), "error")


async def drive(events: AsyncGenerator[bytes, None], heartbeat: float = 10) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("a stream does not read")

    await EventStream(events, heartbeat=heartbeat, on_error=failed)({"type": "http"}, receive, send)
    return sent


def bodies(sent: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


def test_wire_format() -> None:
    assert event(b"{}") == b"data: {}\n\n"
    assert event(b"{}", "hits") == b"event: hits\ndata: {}\n\n"


async def test_events_are_sent_one_by_one_and_the_stream_ends() -> None:
    async def two() -> AsyncGenerator[bytes, None]:
        yield event(b"1")
        yield event(b"2")

    sent = await drive(two())
    assert [message.get("body") for message in sent] == [None, event(b"1"), event(b"2"), b""]
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert sent[-1]["more_body"] is False


async def test_error_before_the_first_event_is_raised() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        raise ModelFailed("no worker")
        yield b""

    with pytest.raises(ModelFailed, match="no worker"):
        await drive(broken())


async def test_later_error_is_an_event_and_the_last() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield event(b"1")
        raise ModelFailed("the worker died")

    sent = await drive(broken())
    assert bodies(sent) == event(b"1") + event(b"model_failed", "error")
    assert sent[-1]["more_body"] is False


async def test_silence_is_filled_with_heartbeats_before_and_between_events() -> None:
    release = asyncio.Event()

    async def slow() -> AsyncGenerator[bytes, None]:
        await release.wait()
        yield event(b"1")

    seen: list[bytes] = []

    async def send(message: Message) -> None:
        seen.append(message.get("body", b""))
        if seen.count(HEARTBEAT) == 2:
            release.set()

    stream = EventStream(slow(), heartbeat=0.001, on_error=failed)
    await stream({"type": "http"}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert seen.count(HEARTBEAT) >= 2
    assert [body for body in seen if body not in (b"", HEARTBEAT)] == [event(b"1")]


async def test_error_after_a_heartbeat_is_an_event() -> None:
    async def slow() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0.05)
        raise ModelFailed("too late")
        yield b""

    assert bodies(await drive(slow(), heartbeat=0.005)).endswith(event(b"model_failed", "error"))


class Ending:
    """In place of the exchange: what a stream is ended by."""

    def __init__(self) -> None:
        self.on_end: Callable[[HeadraceError], None] | None = None

    def end(self) -> None:
        assert self.on_end is not None
        self.on_end(ModelFailed("ended from outside"))


@pytest.mark.parametrize("events", [0, 3, 500])
async def test_an_end_from_outside_is_the_last_event(events: int) -> None:
    """Before the first event it is raised; after some they are sent before it, however slowly."""
    closed = False
    ending = Ending()
    sent: list[Message] = []

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            for number in range(events):
                yield event(b"%d" % number)
            await asyncio.Event().wait()
        finally:
            closed = True

    async def send(message: Message) -> None:
        sent.append(message)
        if events == 500 and len(sent) == 5:  # the generator is ahead of the reader
            ending.end()
            await asyncio.sleep(0.01)

    stream = EventStream(endless(), heartbeat=10, on_error=failed)
    scope = {"type": "http", "headrace.exchange": ending}
    task = asyncio.create_task(stream(scope, asyncio.Event().wait, send))  # type: ignore[arg-type]
    if events != 500:
        await asyncio.sleep(0.02)
        ending.end()
    async with asyncio.timeout(20):
        if events == 0:
            with pytest.raises(ModelFailed):
                await task
            assert sent == []
        else:
            await task
            assert bodies(sent).startswith(event(b"0") + event(b"1") + event(b"2"))
            assert bodies(sent).endswith(event(b"model_failed", "error"))
            assert bodies(sent).count(b"data:") < 100
            assert sent[-1]["more_body"] is False
    assert closed


async def test_an_end_before_the_generator_began_is_raised() -> None:
    async def never() -> AsyncGenerator[bytes, None]:
        raise AssertionError("it must not begin")
        yield b""

    class AtOnce(Ending):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if value is not None:
                self.end()

    stream = EventStream(never(), heartbeat=10, on_error=failed)
    scope = {"type": "http", "headrace.exchange": AtOnce()}
    async with asyncio.timeout(20):
        with pytest.raises(ModelFailed):
            await stream(scope, asyncio.Event().wait, asyncio.Event().wait)  # type: ignore[arg-type]


async def test_cancelling_the_response_closes_the_generator() -> None:
    closed, begun = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                begun.set()
                yield event(b"1")
        finally:
            closed.set()

    async def stuck(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    stream = EventStream(endless(), heartbeat=10, on_error=failed)
    task = asyncio.create_task(stream({"type": "http"}, asyncio.Event().wait, stuck))  # type: ignore[arg-type]
    await begun.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


async def test_a_generator_that_fails_when_its_reader_has_gone_ends_too() -> None:
    """It has more ready than is kept, and an error, for nobody."""
    waits = asyncio.Event()

    async def stubborn() -> AsyncGenerator[bytes, None]:
        for _ in range(65):  # one is being sent, the others fill the queue
            yield event(b"1")
        waits.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ModelFailed("it failed at that moment") from None

    async def send(message: Message) -> None:
        await asyncio.sleep(60)

    async def receive() -> Message:
        raise AssertionError("a stream does not read")

    stream = EventStream(stubborn(), heartbeat=10, on_error=failed)
    task = asyncio.create_task(stream({"type": "http"}, receive, send))
    await waits.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done

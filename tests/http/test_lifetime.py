from __future__ import annotations

import asyncio
import time

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from headrace.http.calls import Asked
from headrace.http.drain import Drain
from headrace.http.lifetime import GRACE_SECONDS, Bounds, Lifetime
from headrace.serving.models import together

LIMIT = 10


class Wire:
    """An ASGI server for one request: gives `messages` (and waits after the last), keeps what is
    sent."""

    def __init__(self, *messages: Message) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self.incoming.put_nowait(message)
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


async def run(
    app: object,
    wire: Wire,
    *,
    body_seconds: float = 60.0,
    deadline: float | None = None,
    **headers: str,
) -> None:
    pairs = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": pairs}
    scope["headrace.asked"] = Asked(time.monotonic(), deadline)
    bounds = Bounds(LIMIT, 60.0, body_seconds)
    lifetime = Lifetime(app, bounds=lambda _: bounds, drain=Drain())  # type: ignore[arg-type]
    await lifetime(scope, wire.incoming.get, wire.send)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


async def test_body_within_the_limit_arrives_whole() -> None:
    wire = Wire(part(b"12345", more=True), part(b"67890"))
    await run(echo, wire, transfer_encoding="chunked")
    assert wire.status == 200
    assert wire.sent[1]["body"] == b"1234567890"


async def test_declared_size_above_the_limit_is_refused_unread() -> None:
    wire = Wire()
    await run(echo, wire, content_length="11")
    assert wire.status == 413


async def test_undeclared_size_above_the_limit_is_refused_when_it_shows() -> None:
    wire = Wire(part(b"12345", more=True), part(b"678901", more=True))
    await run(echo, wire, transfer_encoding="chunked")
    assert wire.status == 413
    assert b"server.max_body_mib" in wire.sent[1]["body"]


@pytest.mark.parametrize("pieces", [[], [part(b"12", more=True)]])
async def test_body_that_does_not_arrive_is_given_up(pieces: list[Message]) -> None:
    wire = Wire(*pieces)
    await run(echo, wire, body_seconds=0.02, content_length="10")
    assert wire.status == 408
    assert (b"connection", b"close") in wire.sent[0]["headers"]
    assert b"too_slow" in wire.sent[1]["body"]


async def test_a_slow_answer_is_not_a_slow_body() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await asyncio.sleep(0.05)
        await PlainTextResponse(body)(scope, receive, send)

    wire = Wire(part(b"12345"))
    await run(slow, wire, body_seconds=0.02, content_length="5")
    assert wire.status == 200


@pytest.mark.parametrize("declared", ["0", "4"])
async def test_client_that_leaves_cancels_the_handler(declared: str) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    wire = Wire(*([part(b"1234")] if declared == "4" else []))
    task = asyncio.create_task(run(slow, wire, content_length=declared))
    await entered.wait()
    wire.incoming.put_nowait(GONE)
    await task
    assert ended.is_set()
    assert wire.sent == []


async def test_client_that_leaves_while_sending_ends_the_request() -> None:
    wire = Wire(part(b"12", more=True), GONE)

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(60)

    await run(read, wire, content_length="4")
    assert wire.sent == []


async def test_disconnect_after_the_last_byte_lets_the_handler_clean_up() -> None:
    wire = Wire()
    cleaned = False

    async def tidy(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal cleaned
        await PlainTextResponse("done")(scope, receive, send)
        wire.incoming.put_nowait(GONE)  # as uvicorn does once the response is complete
        await asyncio.sleep(0.01)
        cleaned = True

    await run(tidy, wire)
    assert cleaned


async def test_handler_that_asks_learns_of_the_disconnect() -> None:
    wire = Wire()
    seen: list[str] = []

    async def asks(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("done")(scope, receive, send)
        seen.append((await receive())["type"])
        wire.incoming.put_nowait(GONE)
        seen.append((await receive())["type"])

    await run(asks, wire)
    assert seen == ["http.request", "http.disconnect"]


async def test_deadline_that_comes_with_a_timeout_inside_is_told_as_a_deadline() -> None:
    """A loop that was held up finds both due in one turn, the inner one first."""

    async def hold_up() -> None:
        time.sleep(GRACE_SECONDS + 0.05)  # noqa: ASYNC251
        await asyncio.sleep(60)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.timeout(0.01):
            await together(hold_up(), asyncio.sleep(60))

    wire = Wire()
    await run(slow, wire, deadline=time.monotonic())
    assert wire.status == 504


async def test_cancellation_from_outside_is_not_swallowed() -> None:
    entered = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await asyncio.sleep(60)

    wire = Wire()
    task = asyncio.create_task(run(slow, wire))
    await entered.wait()
    wire.incoming.put_nowait(GONE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

"""Server-sent events.

Written here and not taken from sse-starlette, which ends all streams as soon as the server gets
SIGTERM (by replacing a method of uvicorn), where `server.shutdown_seconds` lets them finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.errors import HeadraceError

HEARTBEAT = b": heartbeat\n\n"
_AHEAD = 64  # events that may be ready before the client has taken the first of them


def event(data: bytes, name: str = "") -> bytes:
    """One event on the wire; `data` must hold no line break (JSON does not)."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: %b\n\n" % data


class EventStream(Response):
    """Sends encoded events as they come, and a comment after `heartbeat` seconds of silence.

    The first event is awaited before the status line is sent, for one heartbeat at most: an error
    until then is raised, and so becomes a response with its own status. A later one is encoded by
    `on_error` and ends the stream; so does an error from outside (a deadline, a shutdown), by
    `headrace.http.lifetime`. The generator runs in one task from first to last, which is cancelled
    when the client goes away, and which waits, a few events ahead, while the client reads nothing.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        heartbeat: float,
        on_error: Callable[[HeadraceError], bytes],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._heartbeat = heartbeat
        self._on_error = on_error
        self._ready: asyncio.Queue[bytes | HeadraceError | None] = asyncio.Queue(_AHEAD)
        self._ended_by: HeadraceError | None = None
        self._stage: Literal["before", "during", "after"] = "before"  # of the generator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(self._pump())
            exchange = scope.get("headrace.exchange")
            if exchange is not None:
                exchange.on_end = lambda error: self._end(pump, error)
            first = await self._next()
            if not isinstance(first, HeadraceError):
                await self._send(first, send)
            await asyncio.wait([pump])  # it may have been cancelled before it began
        if isinstance(first, HeadraceError):
            raise first

    def _end(self, pump: asyncio.Task[None], error: HeadraceError) -> None:
        """What is ready is still sent, then the error."""
        if self._stage == "before":
            self._ready.put_nowait(error)
        if self._stage != "after":
            self._ended_by = error
            pump.cancel()

    async def _pump(self) -> None:
        self._stage = "during"
        last: HeadraceError | None = None
        try:
            async with aclosing(self._events) as events:
                async for item in events:
                    await self._ready.put(item)
        except HeadraceError as error:
            if self._nobody_reads():
                return
            last = error
        except asyncio.CancelledError:
            if self._ended_by is None:
                raise
            last = self._ended_by
        self._stage = "after"
        await self._ready.put(last)

    def _nobody_reads(self) -> bool:
        """Whether the pump was cancelled because nobody reads any more."""
        pump = asyncio.current_task()
        return self._ended_by is None and pump is not None and pump.cancelling() > 0

    async def _next(self) -> bytes | HeadraceError | None:
        if not self._ready.empty():
            return self._ready.get_nowait()
        try:
            async with asyncio.timeout(self._heartbeat):
                return await self._ready.get()
        except TimeoutError:
            return HEARTBEAT

    async def _send(self, item: bytes | HeadraceError | None, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        while isinstance(item, bytes):
            await send(_part(item))
            item = await self._next()
        if isinstance(item, HeadraceError):
            await send(_part(self._on_error(item)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _part(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}

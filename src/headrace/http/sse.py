"""Server-sent events.

Written here and not taken from sse-starlette, which ends all streams as soon as the server gets
SIGTERM (by replacing a method of uvicorn), where `server.shutdown_seconds` lets them finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

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
    `on_error` and ends the stream. The generator runs in one task from first to last, which is
    cancelled when the client goes away.
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(self._pump())
            first = await self._next()
            if not isinstance(first, HeadraceError):
                await self._send(first, send)
            await pump
        if isinstance(first, HeadraceError):
            raise first

    async def _pump(self) -> None:
        async with aclosing(self._events) as events:
            try:
                async for item in events:
                    await self._ready.put(item)
            except HeadraceError as error:
                await self._ready.put(error)
            else:
                await self._ready.put(None)

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

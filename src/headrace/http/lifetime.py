"""How long a request lives: as long as its client is there, and its body within bounds.

The ASGI server tells of a client that went away only to those who ask; a handler that waits for a
model does not ask. So this middleware asks for it, and cancels the handler with all it started.
"""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.errors import HeadraceError, TooLarge, TooSlow
from headrace.http.failures import error_response

BODY_SECONDS = 30.0
"""How long a body may keep us waiting; every KiB that arrives gives a second back."""

_BYTES_PER_SECOND = 1024


class Lifetime:
    """Cancels a request's work when its client goes away, its body exceeds `max_body` bytes, or
    waiting for the body takes longer than `body_seconds`: an unfinished request holds one of the
    places that `server.max_pending` limits."""

    def __init__(self, app: ASGIApp, *, max_body: int, body_seconds: float = BODY_SECONDS) -> None:
        self.app = app
        self._max_body = max_body
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._max_body:
            await error_response(_too_large(self._max_body))(scope, receive, send)
            return
        bodyless = declared == "0" and "transfer-encoding" not in headers
        exchange = _Exchange(receive, send, self._max_body, self._body_seconds, bodyless=bodyless)
        watcher = asyncio.create_task(exchange.watch())
        try:
            with exchange.work:
                await self.app(scope, exchange.receive, exchange.send)
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])
        if exchange.refusal is not None and not exchange.started:
            response = error_response(exchange.refusal)
            response.headers["Connection"] = "close"  # the rest of the body is never read
            await response(scope, receive, send)


def _too_large(max_body: int) -> TooLarge:
    return TooLarge(
        f"the body has more than {max_body} bytes, which is the limit (server.max_body_mib)"
    )


class _Exchange:
    """One request and its response. Only `receive` reads the body, only `watch` reads what comes
    after it, so the two never wait for the same message."""

    def __init__(
        self, receive: Receive, send: Send, max_body: int, body_seconds: float, *, bodyless: bool
    ) -> None:
        self.work = anyio.CancelScope()
        self.started = False
        self.refusal: HeadraceError | None = None
        self._complete = False
        self._receive = receive
        self._send = send
        self._max_body = self._left = max_body
        self._body_seconds = self._patience = body_seconds
        self._bodyless = bodyless
        self._read = asyncio.Event()
        self._gone = asyncio.Event()
        if bodyless:
            self._read.set()

    async def receive(self) -> Message:
        if self._bodyless:
            self._bodyless = False
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._read.is_set():
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await self._next()
        if message["type"] == "http.disconnect":
            self._leave()
            return message
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            await self._refuse(_too_large(self._max_body))
        if not message.get("more_body", False):
            self._read.set()
        return message

    async def _next(self) -> Message:
        """Only time spent waiting counts, not what the handler does between two pieces."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                message = await self._receive()
        except TimeoutError:
            await self._refuse(
                TooSlow(
                    f"the body does not arrive: {self._body_seconds:g} seconds of waiting and "
                    f"{_BYTES_PER_SECOND} bytes per second are the least"
                )
            )
        earned = len(message.get("body", b"")) / _BYTES_PER_SECOND
        left = self._patience + earned - (time.monotonic() - began)
        self._patience = min(self._body_seconds, left)
        return message

    async def _refuse(self, error: HeadraceError) -> NoReturn:
        """Ends the handler, wherever it is; the middleware answers in its place."""
        self.refusal = error
        self.work.cancel()
        await anyio.sleep_forever()
        raise AssertionError("the scope is cancelled")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
        elif not message.get("more_body", False):
            self._complete = True  # from here on "disconnect" is the normal end
        await self._send(message)

    async def watch(self) -> None:
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone.set()
        self._read.set()
        if not self._complete:
            self.work.cancel()

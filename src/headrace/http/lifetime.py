"""How long a request lives: as long as its client is there and takes its answer, its body is within
bounds, its time is not over and the server is not at its end.

The ASGI server tells of a client that went away only to those who ask; a handler that waits for a
model does not ask. So this middleware asks for it, and cancels the handler with all it started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.errors import DeadlineExceeded, HeadraceError, TooLarge, TooSlow
from headrace.http.calls import asked_of
from headrace.http.drain import Drain
from headrace.http.failures import error_response

BODY_SECONDS = 30.0
"""How long a body may keep us waiting; every KiB that arrives gives a second back."""

_BYTES_PER_SECOND = 1024

GRACE_SECONDS = 0.05
"""How late an answer may be. One that is ready a moment after its deadline, because the machine was
busy, is worth more than an error."""


class Bounds(NamedTuple):
    """`max_body` in bytes, with the option that sets it; `stall_seconds` is how long a client may
    take nothing of its answer."""

    max_body: int
    stall_seconds: float
    body_seconds: float = BODY_SECONDS
    option: str = "server.max_body_mib"


class Lifetime:
    """Ends a request's work when its client goes away or stalls, its body exceeds its bounds, its
    deadline passes, or `drain` says so: an unfinished request holds one of the places that
    `server.max_pending` limits. `bounds` is asked for each request."""

    def __init__(self, app: ASGIApp, *, bounds: Callable[[Scope], Bounds], drain: Drain) -> None:
        self.app = app
        self._bounds = bounds
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        bounds = self._bounds(scope)
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > bounds.max_body:
            await _last_response(_too_large(bounds), scope, receive, send)
            return
        bodyless = declared == "0" and "transfer-encoding" not in headers
        exchange = Exchange(receive, send, bounds, _abort_of(scope), bodyless=bodyless)
        deadline = asked_of(scope).deadline
        if deadline is not None:
            exchange.expire_at(deadline)
        scope["headrace.exchange"] = exchange
        watcher = asyncio.create_task(exchange.watch())
        self._drain.add(exchange)
        try:
            with exchange.work:
                await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.work.cancel_called or _cancelled_from_outside():
                raise  # else it is the scope's own, which a timeout inside met and made nameless
        finally:
            self._drain.remove(exchange)
            exchange.disarm()
            watcher.cancel()
            await asyncio.wait([watcher])
        if exchange.refusal is not None and not exchange.started:
            await _last_response(exchange.refusal, scope, receive, send)


def _cancelled_from_outside() -> bool:
    """The scope and the timeouts inside have taken theirs back."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _last_response(error: HeadraceError, scope: Scope, receive: Receive, send: Send) -> None:
    """The rest of the body is never read, so the connection cannot be used again."""
    response = error_response(error)
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


def _abort_of(scope: Scope) -> Callable[[], None]:
    """Cuts the connection, unsent bytes included; `headrace.http.protocol` puts it there."""
    abort: Callable[[], None] | None = scope.get("headrace.abort")
    return abort or (lambda: None)


def _too_large(bounds: Bounds) -> TooLarge:
    return TooLarge(
        f"the body has more than {bounds.max_body} bytes, which is the limit ({bounds.option})"
    )


class Exchange:
    """One request and its response. Only `receive` reads the body, only `watch` reads what comes
    after it, so the two never wait for the same message.

    `refusal` is answered in the handler's place where its answer has not begun. A stream sets
    `on_end`, to tell its client in the stream. `idle` says that it only waits for something to
    happen, so that a shutdown need not wait for it."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        bounds: Bounds,
        abort: Callable[[], None],
        *,
        bodyless: bool,
    ) -> None:
        self.work = anyio.CancelScope()
        self.started = False
        self.idle = False
        self.refusal: HeadraceError | None = None
        self.on_end: Callable[[HeadraceError], None] | None = None
        self._complete = False
        self._receive = receive
        self._send = send
        self._bounds = bounds
        self._abort = abort
        self._left = bounds.max_body
        self._patience = bounds.body_seconds
        self._deadline: tuple[float, asyncio.TimerHandle] | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._sending_since: float | None = None
        self._bodyless = bodyless
        self._read = asyncio.Event()
        self._gone = asyncio.Event()
        if bodyless:
            self._read.set()

    # Ended from outside ---------------------------------------------------------------------------

    def expire_at(self, deadline: float) -> None:
        """End with `DeadlineExceeded` soon after a time of `time.monotonic()`; the earliest one
        counts."""
        if self._deadline is not None:
            if self._deadline[0] <= deadline:
                return
            self._deadline[1].cancel()
        error = DeadlineExceeded("the time of this request is over (deadline_ms)")
        left = max(0.0, deadline + GRACE_SECONDS - time.monotonic())
        timer = asyncio.get_running_loop().call_later(left, self.end, error)
        self._deadline = (deadline, timer)

    def end(self, error: HeadraceError) -> None:
        """A whole answer that has begun is let finish: all of it is there."""
        if self._complete or self.refusal is not None:
            return
        if self.on_end is not None:
            self.refusal = error
            self.on_end(error)
        elif not self.started:
            self.refusal = error
            self.work.cancel()

    def disarm(self) -> None:
        if self._deadline is not None:
            self._deadline[1].cancel()
        if self._stall is not None:
            self._stall.cancel()

    # What comes in --------------------------------------------------------------------------------

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
            await self._refuse(_too_large(self._bounds))
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
                    f"the body does not arrive: {self._bounds.body_seconds:g} seconds of waiting "
                    f"and {_BYTES_PER_SECOND} bytes per second are the least"
                )
            )
        earned = len(message.get("body", b"")) / _BYTES_PER_SECOND
        left = self._patience + earned - (time.monotonic() - began)
        self._patience = min(self._bounds.body_seconds, left)
        return message

    async def _refuse(self, error: HeadraceError) -> NoReturn:
        """Ends the handler, wherever it is; the middleware answers in its place."""
        self.refusal = error
        self.work.cancel()
        await anyio.sleep_forever()
        raise AssertionError("the scope is cancelled")

    # What goes out --------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._watch_stall(self._bounds.stall_seconds)
        elif not message.get("more_body", False):
            self._complete = True  # from here on "disconnect" is the normal end
        self._sending_since = time.monotonic()
        await self._send(message)  # waits while the client takes nothing
        self._sending_since = None

    def _watch_stall(self, seconds: float) -> None:
        self._stall = asyncio.get_running_loop().call_later(seconds, self._check_stall)

    def _check_stall(self) -> None:
        """One timer for all pieces: most are written without waiting."""
        limit = self._bounds.stall_seconds
        waited = 0.0
        if self._sending_since is not None:
            waited = time.monotonic() - self._sending_since
        if waited >= limit:
            self._abort()
            self.work.cancel()
        else:
            self._watch_stall(limit - waited)

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
